"""Why a pool does not work: checks of an instance or another deployment, and the safe fixes."""
