//! `syncline attach`: from now on, what any program writes to these tables is recorded.

use crate::database::Database;
use crate::{Failure, Global, Report, text};
use serde::Serialize;
use std::path::PathBuf;
use syncline::{
    AttachReport, ConfigFile, Error, Existing as Rows, HttpRemote, HttpRemoteError, PlainHttp,
    Policy, Syncline,
};

/// Have tables of a database synced; works offline
///
/// Every write to them is recorded from now on, by whatever program and in whatever language. The
/// tables themselves stay as they are.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: Database,
    /// The server's address
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    remote: Option<String>,
    /// Everything that can be declared, in one file; attached tables take over what changed in it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
    /// What happens with the rows that are there
    #[arg(long, value_name = "HOW", default_value = "upload")]
    existing: Existing,
    /// How conflicts are decided
    #[arg(long, value_name = "RULE", default_value = "field-merge", value_parser = policies())]
    policy: Policy,
    /// Allow plain http to another machine: token and data travel unprotected
    #[arg(long)]
    allow_plain_http: bool,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Which {
    /// Every table
    #[arg(long, required_unless_present_any = ["tables", "config"])]
    all: bool,
    /// This table; may be given several times
    #[arg(long = "table", value_name = "NAME")]
    tables: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Existing {
    /// They are new to the server and are uploaded
    Upload,
    /// The server has them: its state is taken over
    Adopt,
}

/// The policies that `--policy` takes, with their meaning.
fn policies() -> impl clap::builder::TypedValueParser<Value = Policy> {
    let words = Policy::WORDS.iter().map(|(word, policy)| {
        clap::builder::PossibleValue::new(*word).help(match policy {
            Policy::FieldMerge => {
                "Field by field; where both sides changed one, the local value stands"
            }
            Policy::ServerWins => "The server's state stands",
            Policy::ClientWins => "The local state stands",
            Policy::LastWriterWins => "The row that reaches the server last stands as a whole",
            Policy::Manual => "A person decides: syncline conflicts",
        })
    });
    let parser = clap::builder::PossibleValuesParser::new(words);
    clap::builder::TypedValueParser::try_map(parser, |word| word.parse::<Policy>())
}

#[derive(Serialize)]
struct Attached<'a> {
    database: String,
    remote: &'a str,
    policy: &'a str,
    #[serde(flatten)]
    report: &'a AttachReport,
}

pub(crate) fn run(args: Args, _global: &Global) -> Result<Report, Failure> {
    let config = match &args.config {
        Some(path) => ConfigFile::read(path).map_err(Error::from)?,
        None => ConfigFile::default(),
    };
    let remote = args.remote.as_deref().or(config.url.as_deref());
    let remote = remote.ok_or_else(|| {
        Failure::usage(
            "no-remote",
            "neither the command line nor the file names a remote",
        )
        .hint("add url to [remote] in the file, or give --remote URL")
    })?;
    let remote = remote.trim().trim_end_matches('/').to_owned();
    check_address(
        &remote,
        plain_http(args.allow_plain_http || config.allow_plain_http),
    )?;
    drop(args.database.read()?); // a file that is no database is told here and left alone
    let mut tables = args.which.tables;
    tables.extend(config.types.keys().cloned());
    let mut builder = Syncline::builder(&args.database.path);
    if args.config.is_some() {
        builder = builder.with_config(config);
    }
    let builder = builder
        .remote(&remote)
        .existing(match args.existing {
            Existing::Upload => Rows::Upload,
            Existing::Adopt => Rows::Adopt,
        })
        .policy(args.policy);
    let builder = match args.which.all {
        true => builder.attach_all(),
        false => builder.attach(tables),
    };
    let report = builder.attach_only()?;
    let text = describe(&report, &remote, args.existing, &args.database);
    Report::new(
        text,
        &Attached {
            database: args.database.shown(),
            remote: &remote,
            policy: args.policy.as_str(),
            report: &report,
        },
    )
}

/// Whether plain http may leave this machine.
pub(crate) fn plain_http(allowed: bool) -> PlainHttp {
    match allowed {
        true => PlainHttp::Anywhere,
        false => PlainHttp::LoopbackOnly,
    }
}

/// Refuses an address that could never be used; nothing is sent.
fn check_address(remote: &str, plain_http: PlainHttp) -> Result<(), Failure> {
    match HttpRemote::builder(remote).plain_http(plain_http).build() {
        // What this machine lacks (certificates) says nothing against the address.
        Ok(_) | Err(HttpRemoteError::Client { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn describe(
    report: &AttachReport,
    remote: &str,
    existing: Existing,
    database: &Database,
) -> String {
    let shown = database.shown();
    let mut lines = Vec::new();
    if !report.updated.is_empty() {
        lines.push(format!("declared anew: {}", report.updated.join(", ")));
    }
    if report.tables.is_empty() && !report.updated.is_empty() {
        lines.push("everything else was attached already".to_owned());
    } else if report.tables.is_empty() {
        lines.push(format!(
            "nothing to do: these tables of {shown} are attached already"
        ));
    } else {
        lines.push(format!(
            "attached to {remote}: {}",
            report.tables.join(", ")
        ));
        lines.push(match existing {
            Existing::Upload => format!("{} recorded to be uploaded", text::count(report.uploads, "row")),
            Existing::Adopt => "the first sync takes over the server's rows, and then uploads the rows that it lacks".to_owned(),
        });
    }
    if !report.unsyncable.is_empty() {
        let n = text::count(report.unsyncable.len() as u64, "row");
        lines.push(format!("{n} cannot be synced as they are:"));
        lines.extend(report.unsyncable.iter().map(|why| format!("  {why}")));
    }
    if !report.references_outside.is_empty() {
        lines.push(format!(
            "rows refer to tables that are not attached, whose rows will not follow: {}",
            report.references_outside.join(", ")
        ));
    }
    let triggers = [
        ("are held off", &report.triggers_held),
        ("fire", &report.triggers_firing),
    ];
    for (what, names) in triggers.iter().filter(|(_, names)| !names.is_empty()) {
        lines.push(format!(
            "your triggers that {what} while the engine applies: {}",
            names.join(", ")
        ));
    }
    lines.push(format!("next: SYNCLINE_TOKEN=… syncline sync {shown}"));
    lines.join("\n")
}
