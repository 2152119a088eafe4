import dagster as dg


@dg.asset(deps=["revenue", dg.AssetKey(["crm", "accounts"])], group_name="reports")
def board_report(context: dg.AssetExecutionContext) -> None:
    context.log.info("Written.")


nightly = dg.ScheduleDefinition(
    name="nightly", target=dg.AssetSelection.all(), cron_schedule="0 3 * * *"
)
