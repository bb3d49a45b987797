//! Stories on files that fail: what panics elsewhere gives an error here.

use crate::world::World;
use syncline::Watcher;
use syncline_store::StoreError;

impl World {
    /// As `sql`, where it may fail: then the app takes back what it had begun.
    pub fn try_sql(&mut self, name: &str, sql: &str) -> rusqlite::Result<()> {
        let app = &self.get(name).app;
        let done = app.execute_batch(sql);
        if done.is_err() && !app.is_autocommit() {
            // Also this may fail; the next statement shows it.
            let _ = app.execute_batch("ROLLBACK");
        }
        done
    }

    /// Whether a device's engine was started and has not crashed.
    pub fn is_running(&mut self, name: &str) -> bool {
        self.get(name).engine.is_some()
    }

    /// As `restart`, where the file may not be in a state to be opened.
    pub fn try_restart(&mut self, name: &str) -> Result<(), StoreError> {
        self.try_start(name, None)
    }

    pub(crate) fn try_start(
        &mut self,
        name: &str,
        watcher: Option<Watcher>,
    ) -> Result<(), StoreError> {
        self.pass(self.config.lease_ttl_ms + 1);
        let (config, checkpoint, recorder) = (self.config.clone(), self.checkpoint, self.recorder);
        self.get(name)
            .try_start(&config, checkpoint, watcher, recorder)
    }
}
