//! A storage in memory, for tests and the simulator: it forgets everything with the process.
//!
//! One lock over everything makes each transaction run alone. A transaction that fails is undone
//! from a list of what it replaced, so nothing is copied up front. Never used to serve people.

mod state;
mod write;

use state::State;
use write::MemoryWrite;

use crate::{ReadTx, Storage, StorageError, WriteTx};
use std::sync::{Mutex, MutexGuard, PoisonError};

type Result<T> = std::result::Result<T, StorageError>;

/// See the module.
#[derive(Debug)]
pub struct MemoryStorage {
    state: Mutex<State>,
}

impl MemoryStorage {
    /// An empty storage whose history has this identity.
    pub fn new(epoch: &str) -> Self {
        let mut state = State::default();
        epoch.clone_into(&mut state.epoch);
        Self {
            state: Mutex::new(state),
        }
    }

    /// A backup of all that is there now, as it is after it was restored: with a history of its own,
    /// in which no exchange token has been handed out.
    #[must_use]
    pub fn backup(&self, epoch: &str) -> Self {
        let mut state = self.lock().copy();
        epoch.clone_into(&mut state.epoch);
        state.exchanges.clear();
        Self {
            state: Mutex::new(state),
        }
    }

    /// A backup that was restored without anybody saying so: it takes itself for what it was.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            state: Mutex::new(self.lock().copy()),
        }
    }

    /// Lets the write operation after the next `operations` ones fail, once, with `error`: the
    /// transaction it belongs to is undone.
    pub fn fail_after(&self, operations: usize, error: StorageError) {
        self.lock().failure = Some((operations, error));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside a transaction undoes it on the way out, so the state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemoryStorage {
    fn write<T>(&self, mut work: impl FnMut(&mut dyn WriteTx) -> Result<T>) -> Result<T> {
        let mut state = self.lock();
        let mut tx = MemoryWrite::new(&mut state);
        let value = work(&mut tx)?;
        tx.commit();
        Ok(value)
    }

    fn read<T>(&self, mut work: impl FnMut(&dyn ReadTx) -> Result<T>) -> Result<T> {
        work(&*self.lock())
    }

    fn cursor_secret(&self) -> [u8; 32] {
        [7; 32]
    }
}
