//! What flags say of the schedule; they go before `syncline.toml`.

use crate::span;
use std::time::Duration;
use syncline::{Builder, Constraints, LiveUpdates, SyncOrder};

/// When to sync, and what.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Schedule {
    #[command(flatten)]
    order: Order,
    /// Ask the server so often while no hints are heard, such as 15s or 10m; ±20 %
    #[arg(long, value_name = "SPAN", value_parser = span::parse)]
    poll: Option<Duration>,
    /// Listen for no hints of the server: changes are found by polling
    #[arg(long)]
    no_live: bool,
    /// The network costs money: only urgent mutations are sent, and nothing is pulled unless asked for
    #[arg(long)]
    metered: bool,
    /// The battery is low: the same
    #[arg(long)]
    low_power: bool,
    /// Do nothing until SIGUSR2
    #[arg(long)]
    paused: bool,
}

/// What a sync does.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Order {
    /// What a sync does, in which order: push-then-pull, pull-then-push, pull-only, push-only
    #[arg(long, value_name = "ORDER", value_parser = order)]
    order: Option<SyncOrder>,
}

impl Order {
    pub(crate) fn apply(&self, builder: Builder) -> Builder {
        match self.order {
            Some(order) => builder.order(order),
            None => builder,
        }
    }
}

impl Schedule {
    /// Tells the engine to be.
    pub(crate) fn apply(&self, builder: Builder) -> Builder {
        let mut builder = self.order.apply(builder);
        if let Some(poll) = self.poll {
            builder = builder.poll_interval(poll);
        }
        if self.no_live {
            builder = builder.live(LiveUpdates::Off);
        }
        if self.metered || self.low_power {
            builder = builder.constraints(Constraints {
                metered: self.metered,
                low_power: self.low_power,
            });
        }
        match self.paused {
            true => builder.start_paused(),
            false => builder,
        }
    }

    /// Whether it begins with a pause.
    pub(crate) fn paused(&self) -> bool {
        self.paused
    }
}

fn order(word: &str) -> Result<SyncOrder, String> {
    let known = SyncOrder::ALL
        .into_iter()
        .find(|order| order.as_str() == word);
    known.ok_or_else(|| {
        let words = SyncOrder::ALL.map(SyncOrder::as_str);
        format!("it is none of: {}", words.join(", "))
    })
}
