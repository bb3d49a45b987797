//! `syncline migrate`: runs an app's schema changes without losing a write.

use crate::database::Database;
use crate::{Failure, Global, Report, text};
use serde_json::json;
use std::io::Read as _;
use std::path::PathBuf;
use syncline::{MigrateReport, migrate};

/// Run a script of schema changes: capture triggers step aside, and stand again afterwards
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: Database,
    /// The SQL script, without BEGIN and COMMIT of its own; `-` reads stdin
    script: PathBuf,
}

pub(crate) fn run(args: Args, _global: &Global) -> Result<Report, Failure> {
    let script = read(&args.script).map_err(|error| {
        let message = format!("cannot read {}: {error}", args.script.display());
        Failure::new("unreadable-script", message)
    })?;
    drop(args.database.read()?); // a file that is no database is told here and left alone
    let report = migrate(&args.database.path, &script)?;
    let shown = args.database.shown();
    let text = describe(&report, &shown);
    Report::new(text, &json!({ "database": shown, "migration": report }))
}

fn read(path: &PathBuf) -> std::io::Result<String> {
    if path.as_os_str() != "-" {
        return std::fs::read_to_string(path);
    }
    let mut script = String::new();
    std::io::stdin().read_to_string(&mut script)?;
    Ok(script)
}

fn describe(report: &MigrateReport, shown: &str) -> String {
    let statements = text::count(report.statements, "statement");
    let mut lines = vec![format!("{statements} run on {shown}")];
    for table in &report.tables {
        lines.push(format!(
            "{}: schema version {} of {}",
            table.table, table.schema_version, table.entity_type
        ));
        for (column, field) in &table.fields {
            lines.push(format!("  {column} is still {field} to other devices"));
        }
        if table.rows_changed {
            lines.push("  rows changed: the next sync finds and sends them".to_owned());
        }
    }
    if report.tables.is_empty() {
        lines.push("no synced table changed".to_owned());
    }
    lines.join("\n")
}
