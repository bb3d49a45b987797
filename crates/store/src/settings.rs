//! Every number that can be set, by its name in `syncline.toml`: what attaching was told is kept in
//! the file, so that every process on it goes by the same numbers.

use crate::error::{StoreError, json, to_json};
use crate::meta;
use crate::stage::Checkpoint;
use rusqlite::Connection;
use std::collections::BTreeMap;
use syncline_core::{Config, Constraints, SyncOrder};
use syncline_protocol::Limits;

/// Where a setting stands in `syncline.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// `[remote]`: waits for the server.
    Remote,
    /// `[sync]`: everything else.
    Sync,
}

/// One number that can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its name; the unit is part of it.
    pub key: &'static str,
    /// Where it stands.
    pub section: Section,
    /// The least that it can be.
    pub least: u64,
    /// The most that it can be.
    pub most: u64,
    /// The words for its values from 0 on, where it is no number.
    pub words: &'static [&'static str],
}

/// The words for [`SyncOrder`].
const ORDERS: &[&str] = &[
    SyncOrder::PushThenPull.as_str(),
    SyncOrder::PullThenPush.as_str(),
    SyncOrder::PullOnly.as_str(),
    SyncOrder::PushOnly.as_str(),
];

/// The words for [`PullMode`].
const PULL_MODES: &[&str] = &["pages", "checkpoint"];

/// When what was pulled is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullMode {
    /// Each page as it comes.
    #[default]
    Pages,
    /// All pages together, in one transaction, when the head is reached: nobody ever sees half of
    /// what another device wrote in one transaction, or half of a first snapshot. Within a limit:
    /// see [`Checkpoint`].
    Checkpoint,
}

/// The words for what holds or does not.
const SWITCH: &[&str] = &["off", "on"];

/// The words for [`LiveUpdates`].
const LIVE_UPDATES: &[&str] = &["on", "off"];

/// Whether the remote's hints are listened for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LiveUpdates {
    /// As long as the engine runs, with a remote that gives hints.
    #[default]
    On,
    /// Never: changes are found by polling.
    Off,
}

/// The words for [`Synchronous`].
const SYNCHRONOUS: &[&str] = &["full", "normal"];

/// What a commit waits for, as in SQLite's `PRAGMA synchronous`, for what the engine and the handle write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// For the disk: what was committed outlives a power loss.
    #[default]
    Full,
    /// For the operating system: a power loss can take the last commits. What of them had been sent is known by
    /// the server, as with a file restored from a backup; what the app had only written here is gone.
    Normal,
}

impl Synchronous {
    /// As the pragma takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Synchronous::Full => "full",
            Synchronous::Normal => "normal",
        }
    }
}

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

const fn remote(key: &'static str, least: u64, most: u64) -> Setting {
    Setting {
        key,
        section: Section::Remote,
        least,
        most,
        words: &[],
    }
}

const fn sync(key: &'static str, least: u64, most: u64) -> Setting {
    Setting {
        key,
        section: Section::Sync,
        least,
        most,
        words: &[],
    }
}

const fn word(key: &'static str, words: &'static [&'static str]) -> Setting {
    Setting {
        words,
        ..sync(key, 0, words.len() as u64 - 1)
    }
}

/// All settings.
pub const SETTINGS: &[Setting] = &[
    remote("connect_timeout_ms", 1, DAY_MS),
    remote("request_timeout_ms", 1, DAY_MS),
    remote("progress_timeout_ms", 1, DAY_MS),
    remote("live_silence_ms", 1, DAY_MS),
    remote("token_timeout_ms", 1, DAY_MS),
    remote("max_response_bytes", 1 << 10, 1 << 40),
    remote("compress_above_bytes", 0, 1 << 40),
    sync("debounce_ms", 0, HOUR_MS),
    sync("debounce_longest_ms", 0, HOUR_MS),
    sync("poll_interval_ms", 100, 30 * DAY_MS),
    word("live", LIVE_UPDATES),
    word("synchronous", SYNCHRONOUS),
    sync("live_poll_interval_ms", 100, 30 * DAY_MS),
    sync("push_mutations", 1, 100_000),
    sync("push_bytes", 1 << 10, 1 << 30),
    word("order", ORDERS),
    word("metered", SWITCH),
    word("low_power", SWITCH),
    word("pull", PULL_MODES),
    sync("page_changes", 1, 100_000),
    sync("checkpoint_changes", 1, 10_000_000),
    sync("checkpoint_bytes", 1 << 10, 1 << 40),
    sync("max_attempts", 1, 1_000_000),
    sync("lone_patience_ms", 0, 30 * DAY_MS),
    sync("greet_after_ms", 0, 30 * DAY_MS),
    sync("retry_budget", 1, 1_000_000),
    sync("backoff_base_ms", 1, DAY_MS),
    sync("backoff_cap_ms", 1, DAY_MS),
    sync("misconfigured_backoff_ms", 1, DAY_MS),
    sync("lease_ttl_ms", 1_000, DAY_MS),
    sync("rounds", 1, 1_000),
    sync("busy_timeout_ms", 0, HOUR_MS),
    sync("outbox_rows", 1, 1 << 40),
    sync("log_rows", 0, 1 << 40),
    sync("log_age_days", 1, 36_500),
    sync("journal_rows", 0, 1 << 40),
    sync("journal_age_days", 1, 36_500),
    sync("conflict_rows", 0, 1 << 40),
    sync("conflict_age_days", 1, 36_500),
    sync("resolver_deadline_ms", 1, 60_000),
];

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// Nothing of that name.
    #[error("there is no setting {0:?}")]
    Unknown(String),
    /// Nothing could work with that number.
    #[error("{key} = {value} is out of range: {least} to {most}")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// What was asked for.
        value: u64,
        /// The least that it can be.
        least: u64,
        /// The most that it can be.
        most: u64,
    },
}

/// The numbers that were set; the others have their defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<&'static str, u64>);

impl Settings {
    /// Sets a number by its name in `syncline.toml`.
    pub fn set(&mut self, key: &str, value: u64) -> Result<(), SettingError> {
        let known = SETTINGS.iter().find(|setting| setting.key == key);
        let setting = known.ok_or_else(|| SettingError::Unknown(key.to_owned()))?;
        if !(setting.least..=setting.most).contains(&value) {
            return Err(SettingError::OutOfRange {
                key: setting.key,
                value,
                least: setting.least,
                most: setting.most,
            });
        }
        self.0.insert(setting.key, value);
        Ok(())
    }

    /// What was set of this name.
    pub fn get(&self, key: &str) -> Option<u64> {
        self.0.get(key).copied()
    }

    fn or(&self, key: &str, default: u64) -> u64 {
        self.get(key).unwrap_or(default)
    }

    /// The settings of the state machine.
    pub fn config(&self) -> Config {
        let mut config = Config::default();
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        for (key, value) in &self.0 {
            let value = *value;
            match *key {
                "order" => {
                    let chosen = SyncOrder::ALL.get(size(value)).copied();
                    config.order = chosen.unwrap_or_default();
                }
                "debounce_ms" => config.debounce_ms = value,
                "debounce_longest_ms" => config.debounce_longest_ms = value,
                "poll_interval_ms" => config.poll_interval_ms = value,
                "live_poll_interval_ms" => config.live_poll_interval_ms = value,
                "push_mutations" => config.push_mutations = size(value),
                "push_bytes" => config.push_bytes = size(value),
                "page_changes" => config.page_changes = size(value),
                "max_attempts" => config.max_attempts = small(value),
                "lone_patience_ms" => config.lone_patience_ms = value,
                "greet_after_ms" => config.greet_after_ms = value,
                "retry_budget" => config.retry_budget = small(value),
                "backoff_base_ms" => config.backoff_base_ms = value,
                "backoff_cap_ms" => config.backoff_cap_ms = value,
                "misconfigured_backoff_ms" => config.misconfigured_backoff_ms = value,
                "lease_ttl_ms" => config.lease_ttl_ms = value,
                "rounds" => config.rounds = small(value),
                _ => {}
            }
        }
        config
    }

    /// Sets when what was pulled is applied (`pull` in `syncline.toml`).
    pub fn set_pull_mode(&mut self, mode: PullMode) {
        self.0.insert("pull", mode as u64);
    }

    /// How much may be staged for a checkpoint; `None`: pages are applied as they come.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let on = self.or("pull", 0) == PullMode::Checkpoint as u64;
        on.then(|| Checkpoint {
            changes: self.or("checkpoint_changes", 50_000),
            bytes: self.or("checkpoint_bytes", 32 << 20),
        })
    }

    /// How much of what was settled is remembered in `syncline_log`.
    pub fn retention(&self) -> Retention {
        let default = Retention::default();
        let days = |days: u64| days.saturating_mul(DAY_MS);
        Retention {
            rows: self.or("log_rows", default.rows),
            age_ms: self.get("log_age_days").map_or(default.age_ms, days),
        }
    }

    /// How much of what was confirmed is kept in `syncline_journal`, to be offered again to a server
    /// that was restored from an older backup.
    pub fn journal(&self) -> Retention {
        Retention {
            rows: self.or("journal_rows", 10_000),
            age_ms: self.or("journal_age_days", 30).saturating_mul(DAY_MS),
        }
    }

    /// How many decided conflicts are remembered in `syncline_conflict`; open ones always are.
    pub fn conflicts(&self) -> Retention {
        Retention {
            rows: self.or("conflict_rows", 10_000),
            age_ms: self.or("conflict_age_days", 90).saturating_mul(DAY_MS),
        }
    }

    /// How long a resolver of the app's own may take for one conflict, in milliseconds.
    pub fn resolver_deadline_ms(&self) -> u64 {
        self.or("resolver_deadline_ms", 250)
    }

    /// Sets whether the remote's hints are listened for (`live` in `syncline.toml`).
    pub fn set_live(&mut self, live: LiveUpdates) {
        self.0.insert("live", live as u64);
    }

    /// Whether the remote's hints are listened for.
    pub fn live(&self) -> LiveUpdates {
        match self.or("live", 0) {
            0 => LiveUpdates::On,
            _ => LiveUpdates::Off,
        }
    }

    /// Sets what a commit waits for (`synchronous` in `syncline.toml`).
    pub fn set_synchronous(&mut self, synchronous: Synchronous) {
        self.0.insert("synchronous", synchronous as u64);
    }

    /// What a commit waits for.
    pub fn synchronous(&self) -> Synchronous {
        match self.or("synchronous", 0) {
            0 => Synchronous::Full,
            _ => Synchronous::Normal,
        }
    }

    /// How the network is to be used from the start.
    pub fn constraints(&self) -> Constraints {
        Constraints {
            metered: self.or("metered", 0) == 1,
            low_power: self.or("low_power", 0) == 1,
        }
    }

    /// Unsettled mutations at most, before the write API says that it is enough.
    pub fn outbox_rows(&self) -> u64 {
        self.or("outbox_rows", 100_000)
    }

    /// How long a statement waits for another writer, in milliseconds.
    pub fn busy_timeout_ms(&self) -> u64 {
        self.or("busy_timeout_ms", 5_000)
    }

    /// What attaching was told; nothing in a file that is not attached.
    pub fn stored(conn: &Connection) -> Result<Self, StoreError> {
        if meta::schema_version(conn)?.is_none() {
            return Ok(Self::default());
        }
        let text: Option<String> = meta::get(conn, meta::key::SETTINGS)?;
        let stored: BTreeMap<String, u64> = match text {
            Some(text) => json("settings", &text)?,
            None => BTreeMap::new(),
        };
        let mut settings = Self::default();
        for (key, value) in stored {
            // A program of another version may know other names and bounds: ours count here.
            if let Err(error) = settings.set(&key, value) {
                tracing::warn!(%error, "a stored setting is passed over");
            }
        }
        Ok(settings)
    }

    pub(crate) fn store(&self, conn: &Connection) -> Result<(), StoreError> {
        match self.0.is_empty() {
            true => meta::clear(conn, meta::key::SETTINGS)?,
            false => meta::set(conn, meta::key::SETTINGS, to_json(&self.0))?,
        }
        Ok(())
    }
}

/// The sizes that the server named last; `None` before the first exchange with it.
pub fn server_limits(conn: &Connection) -> Result<Option<Limits>, StoreError> {
    let text: Option<String> = meta::get(conn, meta::key::LIMITS)?;
    text.map(|text| json("server's limits", &text)).transpose()
}

/// How much of what was settled is remembered, by default in `syncline_log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Rows at most.
    pub rows: u64,
    /// What is older is forgotten, in milliseconds.
    pub age_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            rows: 10_000,
            age_ms: 90 * DAY_MS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::StoreOptions;

    #[test]
    fn every_number_of_the_core_can_be_set() {
        let shown = format!("{:#?}", Config::default());
        let lines = shown
            .lines()
            .filter_map(|line| line.trim().split_once(": "));
        let core: Vec<&str> = lines.map(|(name, _)| name).collect();
        assert!(core.len() >= 12, "{shown}");
        for name in core {
            let setting = SETTINGS.iter().find(|setting| setting.key == name);
            let setting = setting.unwrap_or_else(|| panic!("{name} cannot be set"));
            if !setting.words.is_empty() {
                continue;
            }
            for value in [setting.least, setting.most] {
                let mut settings = Settings::default();
                settings.set(name, value).unwrap();
                let set = format!("{:#?}", settings.config());
                let line = format!(" {name}: {value},");
                assert!(set.contains(&line), "{line} in {set}");
            }
        }
    }

    #[test]
    fn every_number_of_the_store_arrives_where_it_belongs() {
        let core = format!("{:#?}", Config::default());
        let elsewhere = SETTINGS.iter().filter(|setting| {
            let own = setting.section == Section::Sync && setting.words.is_empty();
            own && !core.contains(&format!(" {}: ", setting.key))
        });
        let mut settings = Settings::default();
        settings.set_pull_mode(PullMode::Checkpoint);
        for (value, setting) in (2_001..).zip(elsewhere) {
            settings.set(setting.key, value).unwrap();
        }
        settings.set("lease_ttl_ms", 3_001).unwrap();
        let set = |key| settings.get(key).unwrap();
        let kept = |rows, days| Retention {
            rows: set(rows),
            age_ms: set(days) * DAY_MS,
        };
        let options = StoreOptions::new("x", 1).settings(&settings);
        let checkpoint = Checkpoint {
            changes: set("checkpoint_changes"),
            bytes: set("checkpoint_bytes"),
        };
        assert_eq!(options.checkpoint, Some(checkpoint));
        assert_eq!(options.retention, kept("log_rows", "log_age_days"));
        assert_eq!(options.journal, kept("journal_rows", "journal_age_days"));
        assert_eq!(
            options.conflicts,
            kept("conflict_rows", "conflict_age_days")
        );
        assert_eq!(options.lease_ttl_ms, 3_001);
        assert_eq!(options.busy_timeout_ms, set("busy_timeout_ms"));
        assert_eq!(options.resolver_deadline_ms, set("resolver_deadline_ms"));
        assert_eq!(settings.outbox_rows(), set("outbox_rows"));
        // Those, the lease and the mode: no other is left to be looked at here.
        assert_eq!(settings.0.len(), 11 + 2, "{settings:?}");
    }

    #[test]
    fn every_order_has_its_word() {
        for (value, order) in (0..).zip(SyncOrder::ALL) {
            let mut settings = Settings::default();
            settings.set("order", value).unwrap();
            assert_eq!(settings.config().order, order);
            assert_eq!(ORDERS[usize::try_from(value).unwrap()], order.as_str());
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let mut settings = Settings::default();
        assert!(settings.set("debounce", 1).is_err());
        assert!(settings.set("rounds", 0).is_err());
        assert!(settings.set("lease_ttl_ms", u64::MAX).is_err());
        assert_eq!(settings, Settings::default());
    }
}
