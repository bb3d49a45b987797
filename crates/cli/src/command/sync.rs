//! `syncline sync`: one full cycle, and what came of it.

mod beside;
mod dry_run;
mod summary;

use super::engine::{Connection, Record};
use super::schedule::Order;
use crate::cycle::{End, Ended, Tally};
use crate::database::{self, Database};
use crate::signal::Stop;
use crate::{Failure, Global, Report, size, span};
use beside::Beside;
use std::time::{Duration, Instant};
use summary::By;
use syncline::{Budget, CycleEnd, Notice, NoticeStream, SyncEnd, Syncline};
use syncline_store::ask::Within;
use syncline_store::outbox_view;

/// How long after its budget another process may still say what is left.
const A_MOMENT: Duration = Duration::from_millis(500);

/// Push and pull everything once
///
/// Ends with 0 when all is done, 10 when something waits for a person, 11 when the remote is
/// unreachable or kept failing, 12 when credentials are needed, 13 when the budget ended first;
/// work is kept in each case. Where another process is syncing the database, that one is asked to
/// sync, within the same bounds, and waited for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) database: Database,
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(flatten)]
    pub(super) record: Record,
    /// The longest to wait, such as 25s or 5m
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = span::parse)]
    pub(super) budget: Duration,
    /// Send and receive at most so much, such as 500kB or 2MB (mutations and changes before
    /// compression), and say what is left
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(super) max_bytes: Option<u64>,
    /// Make at most so many requests, and say what is left
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_requests: Option<u64>,
    #[command(flatten)]
    pub(super) order: Order,
    /// Only print what would be sent, one batch after the other; nothing is sent or changed
    #[arg(long)]
    pub(super) dry_run: bool,
}

pub(crate) fn run(args: Args, _global: &Global) -> Result<Report, Failure> {
    if args.dry_run {
        return dry_run::run(&args.database, &args.connection);
    }
    let until = Instant::now() + args.budget;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("runtime", error.to_string()))?;
    let bounded = args.max_bytes.is_some() || args.max_requests.is_some();
    let engine = args.connection.start(&args.database, |builder| {
        let builder = args.record.apply(args.order.apply(builder));
        match bounded {
            // So that not even the first request escapes the count.
            true => builder.start_paused(),
            false => builder,
        }
    })?;
    let mut notices = engine.notices();
    let mut tally = Tally::default();
    let (ended, by) = runtime.block_on(async {
        let mut stop = Stop::listen().map_err(|e| Failure::new("signals", e.to_string()))?;
        if bounded {
            return pass(&engine, &args, until, &mut notices, &mut tally, &mut stop).await;
        }
        sync(
            &engine,
            &args.database,
            until,
            &mut notices,
            &mut tally,
            &mut stop,
        )
        .await
    })?;
    engine.close();
    // What was told before the end and not read yet.
    runtime.block_on(async {
        while let Some(notice) = notices.next().await {
            tally.take(&notice);
        }
    });
    summary::report(&args.database, &ended, by, &tally)
}

/// One pass within its bounds, by this process or by the one that is the engine.
async fn pass(
    engine: &Syncline,
    args: &Args,
    until: Instant,
    notices: &mut NoticeStream,
    tally: &mut Tally,
    stop: &mut Stop,
) -> Result<(Ended, By), Failure> {
    let mut budget = Budget::time(args.budget);
    if let Some(bytes) = args.max_bytes {
        budget = budget.bytes(bytes);
    }
    if let Some(requests) = args.max_requests {
        budget = budget.requests(requests);
    }
    let pass = engine.run_for(budget);
    tokio::pin!(pass);
    let end = loop {
        tokio::select! {
            biased;
            () = stop.wait() => {
                return Ok((Ended::new(End::Interrupted, "stopped by a signal"), By::Us));
            }
            notice = notices.next() => if let Some(notice) = notice {
                tally.take(&notice);
            },
            pass = &mut pass => break pass.end,
        }
    };
    match end {
        SyncEnd::Cycle(CycleEnd::Standby) => pass_of_another(args, until, stop).await,
        end => Ok((tally.ended(&end), By::Us)),
    }
}

/// Another process is the engine: it makes the pass, and is waited for until the budget has ended.
async fn pass_of_another(
    args: &Args,
    until: Instant,
    stop: &mut Stop,
) -> Result<(Ended, By), Failure> {
    tracing::info!("another process is syncing this database: it is asked for a bounded pass");
    let left = until.saturating_duration_since(Instant::now());
    let within = Within {
        time_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        requests: args.max_requests,
        bytes: args.max_bytes,
    };
    let beside = Beside::ask(&args.database, Some(within))?;
    // It ends its pass by then; the answer takes a moment.
    let until = until + A_MOMENT;
    while Instant::now() < until {
        if let Some(ended) = beside.look()? {
            return Ok((ended, By::Another));
        }
        tokio::select! {
            () = stop.wait() => {
                return Ok((Ended::new(End::Interrupted, "stopped by a signal"), By::Another));
            }
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    Ok((beside.given_up()?, By::Another))
}

/// Syncs until everything is done that the budget allows.
async fn sync(
    engine: &Syncline,
    database: &Database,
    until: Instant,
    notices: &mut NoticeStream,
    tally: &mut Tally,
    stop: &mut Stop,
) -> Result<(Ended, By), Failure> {
    loop {
        let (ended, by) = tokio::select! {
            () = stop.wait() => return Ok((Ended::new(End::Interrupted, "stopped by a signal"), By::Us)),
            once = once(engine, database, until, notices, tally) => once?,
        };
        let due = match (ended.end, by) {
            (End::Complete, By::Us) => due_within(database, until)?,
            _ => None,
        };
        let Some(wait) = due else {
            return Ok((ended, by));
        };
        // Something was put off by the server for less than is left of the budget.
        tokio::select! {
            () = stop.wait() => return Ok((ended, by)),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// One cycle, by this process or by the one that is the engine.
async fn once(
    engine: &Syncline,
    database: &Database,
    until: Instant,
    notices: &mut NoticeStream,
    tally: &mut Tally,
) -> Result<(Ended, By), Failure> {
    let patience = until.saturating_duration_since(Instant::now());
    let own = engine.sync(patience);
    tokio::pin!(own);
    let mut beside: Option<Beside> = None;
    let mut look = tokio::time::interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            // What was told before the end is counted before the end.
            biased;
            notice = notices.next() => if let Some(notice) = notice {
                tally.take(&notice);
                if notice == Notice::Standby && beside.is_none() {
                    tracing::info!("another process is syncing this database: it is asked to sync now");
                    beside = Some(Beside::ask(database, None)?);
                }
            },
            end = &mut own => return Ok(match (&end, &beside) {
                (SyncEnd::TimedOut | SyncEnd::Cycle(CycleEnd::Standby), Some(beside)) => {
                    (beside.given_up()?, By::Another)
                }
                _ => (tally.ended(&end), By::Us),
            }),
            _ = look.tick(), if beside.is_some() => {
                if let Some(ended) = beside.as_ref().map(Beside::look).transpose()?.flatten() {
                    return Ok((ended, By::Another));
                }
            }
        }
    }
}

/// How long until the next mutation that was put off is due, if that is before the budget's end.
fn due_within(database: &Database, until: Instant) -> Result<Option<Duration>, Failure> {
    let now = database::now();
    let due = outbox_view::next_due(&database.read()?, now)?;
    let wait = due.and_then(|due| u64::try_from(due.saturating_sub(now.unix_ms)).ok());
    let wait = wait.map(|ms| Duration::from_millis(ms.saturating_add(1)));
    Ok(wait.filter(|wait| Instant::now() + *wait < until))
}
