//! `syncline doctor`: is this database sound, is what it says what the server has, and mending what
//! differs.

use super::engine::Connection;
use crate::database::{self, Database};
use crate::{Exit, Failure, Global, Report, text};
use serde::Serialize;
use syncline::{Builder, Compared, Comparison, Divergence, Error, RemoteError, Rows, StoreError};
use syncline_store::doctor::{self, Finding, Severity, clock};

/// Divergent rows that the text names; the JSON has more.
const NAMED: usize = 20;

/// Check a database and what Syncline keeps in it, and compare its rows with the server
///
/// Changes nothing without --repair. Ends with 0 when all is well, 1 when a check failed, else 11 or
/// 12 when the server could not be asked, else 10 when something waits for a person.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    connection: Connection,
    /// Renew what is missing, and let rows that differ without a reason take over what the server has
    #[arg(long, conflicts_with = "offline")]
    repair: bool,
    /// Do not ask the server
    #[arg(long)]
    offline: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    database: String,
    healthy: bool,
    findings: &'a [Finding],
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<Counts>,
    divergent: Vec<Named>,
}

/// What came of comparing, in numbers.
#[derive(Serialize)]
struct Counts {
    compared: u64,
    position: i64,
    not_comparable: std::collections::BTreeMap<String, u64>,
    changed_since: u64,
    divergent: usize,
    /// There are more; it was not looked any further.
    cut: bool,
}

#[derive(Serialize)]
struct Named {
    entity_type: String,
    entity_id: String,
    kind: syncline::DivergenceKind,
    fields: Vec<String>,
}

pub(crate) fn run(args: Args, _global: &Global) -> Result<Report, Failure> {
    let now = database::now();
    let conn = args.database.read()?;
    let mut findings = doctor::examine(&conn, &args.database.path, now)?;
    drop(conn);
    let (mut compared, mut exit) = (None, Exit::Done);
    if is_damaged(&findings) {
        // Nothing is written to it, and what it seems to hold is compared with nothing (S1).
        if args.repair {
            let detail = "nothing was repaired: the file is damaged";
            findings.push(Finding::new("repair", Severity::Failed, detail));
        }
    } else if !args.offline {
        let builder = args.connection.builder(&args.database.path)?;
        let asked = ask(&args, &builder);
        if args.repair {
            // The file as it is now.
            findings = doctor::examine(&args.database.read()?, &args.database.path, now)?;
        }
        match asked {
            Ok(answer) => {
                // The server's clock as it was when it was asked last is of no interest now.
                findings.retain(|one| one.code != "clock");
                findings.extend(of_answer(&answer));
                compared = Some(answer);
            }
            Err(error) => {
                let (finding, because) = not_asked(error)?;
                exit = because;
                findings.push(finding);
            }
        }
    }
    shown(&args, &findings, compared.as_ref(), exit)
}

fn is_damaged(findings: &[Finding]) -> bool {
    let bad = |one: &Finding| one.code == "integrity" && one.severity == Severity::Failed;
    findings.iter().any(bad)
}

fn ask(args: &Args, builder: &Builder) -> Result<Compared, Error> {
    match args.repair {
        true => builder.repair(),
        false => builder.compare(),
    }
}

/// Why the server was not asked, if that is no reason to stop.
fn not_asked(error: Error) -> Result<(Finding, Exit), Failure> {
    let told =
        |code, detail: String, mend: &str| Finding::new(code, Severity::Failed, detail).mend(mend);
    Ok(match error {
        Error::Answer(error @ RemoteError::Auth { .. }) => (
            Finding::new("server", Severity::Warning, error.to_string())
                .mend("syncline doctor DB --token-file FILE"),
            Exit::CredentialsNeeded,
        ),
        Error::Answer(error @ (RemoteError::Unreachable { .. } | RemoteError::Transient { .. })) => (
            Finding::new("server", Severity::Warning, error.to_string())
                .mend("try again later, or syncline doctor DB --offline"),
            Exit::Unreachable,
        ),
        Error::Answer(RemoteError::Misconfigured { status: 404, .. }) => (
            told(
                "server",
                "the server knows no digests: rows cannot be compared".to_owned(),
                "update the server",
            ),
            Exit::Done,
        ),
        Error::Answer(error) => (
            told("server", error.to_string(), "check the remote's address and the token's rights"),
            Exit::Done,
        ),
        Error::Store(StoreError::Fenced) => (
            told(
                "repair",
                "another process is the engine of this database, and only the engine may write what the server has".to_owned(),
                "stop that process (syncline doctor DB tells which), repair, start it again",
            ),
            Exit::Done,
        ),
        Error::Store(StoreError::Refused(detail)) => {
            (told("repair", detail, "syncline sync DB"), Exit::Done)
        }
        other => return Err(other.into()),
    })
}

fn of_answer(answer: &Compared) -> Vec<Finding> {
    let principal = &answer.hello.principal;
    let whom = format!("{}/{}", principal.tenant, principal.subject);
    let (ahead, exactly) = answer.clock_ahead_ms;
    let mut findings = vec![
        Finding::ok("server", format!("{} answers {whom}", answer.hello.server)),
        clock(ahead, exactly),
    ];
    findings.push(match &answer.rows {
        Rows::OtherAccount => Finding::new(
            "account",
            Severity::Failed,
            match &answer.account {
                Some(own) => format!(
                    "the database belongs to {}/{}, the token to {whom}: nothing is compared",
                    own.tenant, own.subject
                ),
                None => format!("the token belongs to {whom}"),
            },
        )
        .mend("use a token of the database's own account"),
        Rows::NeverPulled => Finding::new(
            "rows",
            Severity::Note,
            "nothing can be compared before everything was pulled once",
        )
        .mend("syncline sync DB"),
        Rows::OtherHistory => Finding::new(
            "history",
            Severity::Warning,
            "the server has a new history: the next sync compares everything",
        )
        .mend("syncline sync DB"),
        Rows::Compared(found) => of_rows(found, answer.repaired.is_some()),
    });
    if let Some(done) = &answer.repaired {
        let detail = format!(
            "{} took over the server's state, {} went as on the server, {} wait in the inbox, {} changed meanwhile and were left alone; what they were is in syncline_log",
            text::count(done.taken_over, "row"),
            done.removed,
            done.waiting,
            done.left_alone
        );
        findings.push(match done.left_alone {
            0 => Finding::ok("repair", detail),
            _ => Finding::new("repair", Severity::Warning, detail).mend("syncline doctor DB"),
        });
    }
    findings
}

fn of_rows(found: &Comparison, repaired: bool) -> Finding {
    let mut detail = match (found.divergent.len(), found.cut) {
        (0, _) => format!("{} are what the server has", text::count(found.rows, "row")),
        (count, true) => format!("at least {count} rows differ from the server"),
        (count, false) => format!(
            "{} of {} differ from the server",
            count,
            text::count(found.rows, "row")
        ),
    };
    let apart: u64 = found.apart.values().sum();
    if apart > 0 {
        detail += &format!(
            "; {} cannot be compared now: something of them waits",
            text::count(apart, "row")
        );
    }
    if found.changed_since > 0 {
        detail += &format!(
            "; {} changed on the server since the last pull",
            found.changed_since
        );
    }
    if found.unsyncable > 0 {
        detail += &format!("; {} have a key that cannot be synced", found.unsyncable);
    }
    match (found.divergent.is_empty(), repaired) {
        (true, _) => Finding::ok("rows", detail),
        (false, true) => Finding::new(
            "rows",
            Severity::Note,
            format!("{detail}, and were repaired"),
        ),
        (false, false) => {
            Finding::new("rows", Severity::Failed, detail).mend("syncline doctor DB --repair")
        }
    }
}

fn shown(
    args: &Args,
    findings: &[Finding],
    compared: Option<&Compared>,
    asked: Exit,
) -> Result<Report, Failure> {
    let worst = findings.iter().map(|one| one.severity).max();
    let exit = match (worst, asked) {
        (Some(Severity::Failed), _) => Exit::Failed,
        (Some(Severity::Person), Exit::Done) => Exit::PersonNeeded,
        (_, asked) => asked,
    };
    let found = compared.and_then(|answer| match &answer.rows {
        Rows::Compared(found) => Some(found),
        _ => None,
    });
    let divergent = found.map_or(&[][..], |found| &found.divergent);
    let json = Shown {
        database: args.database.shown(),
        healthy: exit == Exit::Done,
        findings,
        rows: found.map(counts),
        divergent: divergent.iter().map(named).collect(),
    };
    let told = describe(&args.database.shown(), findings, divergent);
    Ok(Report::new(told, &json)?.exit(exit))
}

fn counts(found: &Comparison) -> Counts {
    let why = |why: &syncline::Apart| format!("{why:?}").to_lowercase();
    let mut not_comparable: std::collections::BTreeMap<String, u64> = (found.apart.iter())
        .map(|(reason, count)| (why(reason), *count))
        .collect();
    if found.unsyncable > 0 {
        not_comparable.insert("key".to_owned(), found.unsyncable);
    }
    Counts {
        compared: found.rows,
        position: found.position,
        not_comparable,
        changed_since: found.changed_since,
        divergent: found.divergent.len(),
        cut: found.cut,
    }
}

fn named(one: &Divergence) -> Named {
    Named {
        entity_type: one.entity.entity_type.to_string(),
        entity_id: one.entity.id.to_string(),
        kind: one.kind,
        fields: one.fields.clone(),
    }
}

fn describe(database: &str, findings: &[Finding], divergent: &[Divergence]) -> String {
    let mut told = String::new();
    for one in findings {
        let word = match one.severity {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Person => "for you",
            Severity::Failed => "FAILED",
        };
        told.push_str(&format!("{word:<8} {} [{}]\n", one.detail, one.code));
        if one.code == "rows" {
            for one in divergent.iter().take(NAMED) {
                told.push_str(&format!("         - {}\n", difference(one)));
            }
            if divergent.len() > NAMED {
                told.push_str(&format!(
                    "         - … and {} more (--json has them)\n",
                    divergent.len() - NAMED
                ));
            }
        }
        if let Some(mend) = &one.mend {
            let mend = text::for_database(mend, database);
            told.push_str(&format!("         mend: {mend}\n"));
        }
    }
    told
}

fn difference(one: &Divergence) -> String {
    let name = text::entity(one.entity.entity_type.as_str(), one.entity.id.as_str());
    match one.kind {
        syncline::DivergenceKind::Differs => format!("{name} differs in {}", one.fields.join(", ")),
        syncline::DivergenceKind::MissingHere => format!("{name} is not here"),
        syncline::DivergenceKind::MissingOnServer => format!("{name} is not on the server"),
    }
}
