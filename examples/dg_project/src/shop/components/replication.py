"""A component that copies tables, one op for all of them, as a replication by Sling does."""

import dagster as dg


class Replication(dg.Component, dg.Model, dg.Resolvable):
    """Copies the tables of a database."""

    tables: list[str]

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        specs = [
            dg.AssetSpec(["crm", table], group_name="crm", kinds={"sling"}) for table in self.tables
        ]

        @dg.multi_asset(specs=specs, name="replicate_crm", can_subset=True)
        def replicate(context: dg.AssetExecutionContext):
            for key in sorted(context.selected_asset_keys):
                context.log.info("Copied %s.", key.to_user_string())
                yield dg.MaterializeResult(asset_key=key)

        return dg.Definitions(assets=[replicate])
