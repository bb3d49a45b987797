//! What can be made to fail, how, and when.

use rusqlite::ffi;
use std::ffi::c_int;

/// A kind of call that SQLite makes to its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// A file is opened.
    Open,
    /// A file is deleted.
    Delete,
    /// It is asked whether a file is there.
    Access,
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// A file is cut.
    Truncate,
    /// What was written is to reach the disk.
    Sync,
    /// It is asked how long a file is.
    Size,
    /// A lock on the database is taken.
    Lock,
    /// A piece of the log's index in shared memory is asked for.
    ShmMap,
    /// A lock on the log's index is taken; giving one back never fails.
    ShmLock,
}

impl Call {
    /// All kinds.
    pub const ALL: [Call; 11] = [
        Call::Open,
        Call::Delete,
        Call::Access,
        Call::Read,
        Call::Write,
        Call::Truncate,
        Call::Sync,
        Call::Size,
        Call::Lock,
        Call::ShmMap,
        Call::ShmLock,
    ];

    /// The failures that a real system has for it.
    pub fn failures(self) -> &'static [Failure] {
        match self {
            Call::Open => &[Failure::CannotOpen, Failure::NoMemory],
            Call::Write => &[Failure::Full, Failure::Io],
            Call::Sync => &[Failure::Io, Failure::Full],
            Call::Lock | Call::ShmLock => &[Failure::Busy, Failure::Io],
            Call::Read | Call::ShmMap => &[Failure::Io, Failure::NoMemory],
            Call::Delete | Call::Access | Call::Truncate | Call::Size => &[Failure::Io],
        }
    }

    /// The bit of a call that changes a file.
    pub(crate) fn changes(self) -> bool {
        matches!(
            self,
            Call::Delete | Call::Write | Call::Truncate | Call::Sync
        )
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// The disk is full; half of what was to be written is written.
    Full,
    /// The system reports an I/O error.
    Io,
    /// Somebody else has the lock.
    Busy,
    /// The file cannot be opened.
    CannotOpen,
    /// There is no memory.
    NoMemory,
}

impl Failure {
    /// SQLite's code of this failure of this call.
    pub(crate) fn code(self, call: Call) -> c_int {
        match (self, call) {
            (Failure::Full, _) => ffi::SQLITE_FULL,
            (Failure::Busy, _) => ffi::SQLITE_BUSY,
            (Failure::CannotOpen, _) | (Failure::Io, Call::Open) => ffi::SQLITE_CANTOPEN,
            (Failure::NoMemory, Call::Read) => ffi::SQLITE_IOERR_NOMEM,
            (Failure::NoMemory, _) => ffi::SQLITE_NOMEM,
            (Failure::Io, Call::Delete) => ffi::SQLITE_IOERR_DELETE,
            (Failure::Io, Call::Access) => ffi::SQLITE_IOERR_ACCESS,
            (Failure::Io, Call::Read) => ffi::SQLITE_IOERR_READ,
            (Failure::Io, Call::Write) => ffi::SQLITE_IOERR_WRITE,
            (Failure::Io, Call::Truncate) => ffi::SQLITE_IOERR_TRUNCATE,
            (Failure::Io, Call::Sync) => ffi::SQLITE_IOERR_FSYNC,
            (Failure::Io, Call::Size) => ffi::SQLITE_IOERR_FSTAT,
            (Failure::Io, Call::Lock) => ffi::SQLITE_IOERR_LOCK,
            (Failure::Io, Call::ShmMap) => ffi::SQLITE_IOERR_SHMMAP,
            (Failure::Io, Call::ShmLock) => ffi::SQLITE_IOERR_SHMLOCK,
        }
    }
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fault {
    /// Which kind of call.
    pub call: Call,
    /// Which of them, counted from 1 and from the moment at which the fault is set.
    pub nth: u64,
    /// How.
    pub failure: Failure,
    /// Every later call of the kind fails as well.
    pub lasting: bool,
}

impl Fault {
    /// The n-th call fails, and no other.
    pub fn once(call: Call, nth: u64, failure: Failure) -> Self {
        Self {
            call,
            nth,
            failure,
            lasting: false,
        }
    }

    /// The n-th call fails, and all after it until the faults are healed.
    pub fn lasting(call: Call, nth: u64, failure: Failure) -> Self {
        Self {
            lasting: true,
            ..Self::once(call, nth, failure)
        }
    }

    pub(crate) fn strikes(self, call: Call, count: u64) -> bool {
        call == self.call && (count == self.nth || (self.lasting && count > self.nth))
    }
}
