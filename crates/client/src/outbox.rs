//! The outbox for the app: what waits, one entry in full, and everything for a backup. Reads only,
//! on a connection of its own, so that a long export holds up no write.

use crate::{Clock, Error, Syncline};
use rusqlite::{Connection, OpenFlags};
use std::time::Duration;
use syncline_store::outbox_view::{self, EntryDetail, EntryView, Which};

/// How long a look waits for a lock that only the recovery of a log takes.
const BUSY: Duration = Duration::from_secs(5);

impl Syncline {
    /// The first `limit` entries of the outbox, in local order, and how many there are. Each says what
    /// it waits for.
    pub fn outbox(&self, which: Which, limit: usize) -> Result<(Vec<EntryView>, u64), Error> {
        let now = Clock::start().now();
        Ok(outbox_view::list(&self.reader()?, which, limit, now)?)
    }

    /// One entry of the outbox with everything that is recorded of it: payload, base, key, group.
    pub fn outbox_entry(&self, seq: i64) -> Result<EntryDetail, Error> {
        let now = Clock::start().now();
        Ok(outbox_view::show(&self.reader()?, seq, now)?)
    }

    /// Every entry in full, in local order, as of one moment: for a backup, or to be mended elsewhere.
    /// Ends with the first error of `each`; how many there were.
    pub fn export_outbox<E: From<Error>>(
        &self,
        which: Which,
        mut each: impl FnMut(&EntryDetail) -> Result<(), E>,
    ) -> Result<u64, E> {
        /// An error of `each`, on its way through the store.
        struct Passed<E>(E);
        impl<E: From<Error>> From<syncline_store::StoreError> for Passed<E> {
            fn from(error: syncline_store::StoreError) -> Self {
                Self(Error::from(error).into())
            }
        }
        let now = Clock::start().now();
        let each = |entry: &EntryDetail| each(entry).map_err(Passed);
        outbox_view::export(&self.reader()?, which, now, each).map_err(|Passed(error)| error)
    }

    fn reader(&self) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        conn.busy_timeout(BUSY)?;
        Ok(conn)
    }
}
