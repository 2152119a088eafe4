"""What each page says, as one frozen dataclass that its template and its JSON share."""
