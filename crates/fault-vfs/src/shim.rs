//! The shim itself: SQLite's file system interface, passed on to the system's own.
//!
//! This is the one place with unsafe code. SQLite calls these functions over its C interface with
//! pointers that it owns; there is no other way to stand under it. What each function relies on is
//! said in SQLite's documentation of `sqlite3_vfs` and `sqlite3_io_methods`:
//!
//! - A file object is memory of SQLite's, at least `szOsFile` bytes and aligned to 8, that lives from
//!   `xOpen` to `xClose`. Ours is a [`ShimFile`] with the system's own object right behind it.
//! - A path handed to `xOpen` outlives the file; buffers live for the length of the call.
//! - Calls on one file come from one thread at a time.
//!
//! Nothing here decides: [`Plan`] says what becomes of a call. No function panics over the border:
//! a panic in `extern "C"` ends the process, which for a tool of tests is an answer.

#![allow(unsafe_code)] // SQLite's C interface, see above

use crate::ambient;
use crate::fault::Call;
use crate::plan::{Order, Plan};
use rusqlite::ffi::{self, sqlite3_file, sqlite3_io_methods, sqlite3_vfs};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, OnceLock};

/// What a call returns while everything is well.
const OK: c_int = ffi::SQLITE_OK;

/// The system's own file system.
struct System(*mut sqlite3_vfs);

// SAFETY: the object is the library's, registered for good, and only read; its functions may be
// called from any thread.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

static SYSTEM: OnceLock<System> = OnceLock::new();

/// Registers the shim as the default, once.
pub(crate) fn install() {
    SYSTEM.get_or_init(|| {
        // SAFETY: a setting of the library as a whole. It takes no lock for each allocation from here on;
        // where the library is in use already it refuses, and nothing changes.
        unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0) };
        // SAFETY: finds the default; initialises the library if need be.
        let system = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
        assert!(!system.is_null(), "SQLite has no file system");
        // SAFETY: checked above, and lives as long as the process.
        let own = unsafe { &*system };
        let shim = Box::new(sqlite3_vfs {
            iVersion: 2,
            szOsFile: own.szOsFile + c_int::try_from(size_of::<ShimFile>()).unwrap(),
            pNext: ptr::null_mut(),
            zName: c"syncline-faults".as_ptr(),
            pAppData: system.cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: Some(last_error),
            xCurrentTimeInt64: Some(current_time_int64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
            ..*own
        });
        // SAFETY: the object is never freed, as SQLite demands of a registered one.
        let registered = unsafe { ffi::sqlite3_vfs_register(Box::leak(shim), 1) };
        assert_eq!(registered, OK, "SQLite refused the shim");
        System(system)
    });
}

/// Makes SQLite ask for new seeds of its randomness.
pub(crate) fn reset_randomness() {
    // SAFETY: no bytes and no buffer: the documented way to reset the generator.
    unsafe { ffi::sqlite3_randomness(0, ptr::null_mut()) };
}

/// The system's own file system.
fn system() -> &'static sqlite3_vfs {
    let system = SYSTEM
        .get()
        .expect("the shim is only called once installed");
    // SAFETY: registered for good.
    unsafe { &*system.0 }
}

/// An open file of ours; the system's own follows it in memory.
#[repr(C, align(8))]
struct ShimFile {
    base: sqlite3_file,
    /// From `Box::into_raw`; null where nobody watches.
    watched: *mut Watched,
}

struct Watched {
    plan: Arc<Plan>,
    path: PathBuf,
}

const METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Without the fetch functions of version 3: no memory-mapped reads pass by.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

static SHIM_METHODS: sqlite3_io_methods = METHODS;

/// The system's file object behind ours, and its functions.
///
/// # Safety
/// `file` was opened by [`open`] and is not closed.
unsafe fn real(file: *mut sqlite3_file) -> (*mut sqlite3_file, &'static sqlite3_io_methods) {
    // SAFETY: `open` put the system's object there and left its methods set.
    unsafe {
        let real = file.cast::<ShimFile>().add(1).cast::<sqlite3_file>();
        (real, &*(*real).pMethods)
    }
}

/// Who watches the file.
///
/// # Safety
/// As for [`real`].
unsafe fn watched<'a>(file: *mut sqlite3_file) -> Option<&'a Watched> {
    // SAFETY: the pointer is null or from `Box::into_raw`, and freed in `close` only.
    unsafe { (*file.cast::<ShimFile>()).watched.as_ref() }
}

/// Asks the plan about a call on a file.
///
/// # Safety
/// As for [`real`].
unsafe fn order(file: *mut sqlite3_file, call: Call) -> Order {
    // SAFETY: the caller's promise.
    match unsafe { watched(file) } {
        Some(watched) => watched.plan.order(call),
        None => Order::Pass,
    }
}

/// As a path; `None` for a file without a name.
///
/// # Safety
/// `name` is null or a string that ends in a zero.
unsafe fn path_of(name: *const c_char) -> Option<PathBuf> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    Some(PathBuf::from(name.to_string_lossy().into_owned()))
}

fn refusal(order: Order) -> c_int {
    match order {
        Order::Pass => OK,
        Order::Fail(code) => code,
        Order::PowerFails => ffi::SQLITE_IOERR,
    }
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives memory of `szOsFile` bytes and a name that is null or a string.
    unsafe {
        let shim = file.cast::<ShimFile>();
        (*shim).base.pMethods = ptr::null();
        (*shim).watched = ptr::null_mut();
        let path = path_of(name);
        let plan = path.as_deref().and_then(Plan::of);
        if let Some(plan) = &plan {
            let code = refusal(plan.order(Call::Open));
            if code != OK {
                return code;
            }
        }
        let real = shim.add(1).cast::<sqlite3_file>();
        (*real).pMethods = ptr::null();
        let system = system();
        let Some(open) = system.xOpen else {
            return ffi::SQLITE_CANTOPEN;
        };
        let code = open(
            ptr::from_ref(system).cast_mut(),
            name,
            real,
            flags,
            out_flags,
        );
        if code != OK {
            // SQLite closes a file whose methods are set even if opening failed; it does not see this one.
            if let Some(methods) = (*real).pMethods.as_ref()
                && let Some(close) = methods.xClose
            {
                close(real);
            }
            return code;
        }
        (*shim).base.pMethods = &raw const SHIM_METHODS;
        if let (Some(plan), Some(path)) = (plan, path) {
            plan.on_disk(|disk| disk.opened(&path));
            (*shim).watched = Box::into_raw(Box::new(Watched { plan, path }));
        }
        OK
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: an open file of ours, closed once.
    unsafe {
        let (real, methods) = real(file);
        let code = methods.xClose.map_or(OK, |close| close(real));
        let shim = file.cast::<ShimFile>();
        if !(*shim).watched.is_null() {
            drop(Box::from_raw((*shim).watched));
            (*shim).watched = ptr::null_mut();
        }
        code
    }
}

/// Passes a call on to the system's function.
macro_rules! pass {
    ($file:ident, $method:ident $(, $argument:expr)*) => {{
        let (real, methods) = real($file);
        match methods.$method {
            Some(method) => method(real $(, $argument)*),
            None => ffi::SQLITE_IOERR,
        }
    }};
}

/// Asks about a call, and passes it on unless it is to fail.
macro_rules! ask {
    ($call:expr, $file:ident, $method:ident $(, $argument:expr)*) => {
        // SAFETY: SQLite calls with an open file of ours and the arguments that the system's
        // function expects.
        unsafe {
            match refusal(order($file, $call)) {
                OK => pass!($file, $method $(, $argument)*),
                code => code,
            }
        }
    };
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    buffer: *mut c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    ask!(Call::Read, file, xRead, buffer, amount, offset)
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    buffer: *const c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: an open file of ours and a buffer of `amount` bytes.
    unsafe {
        let length = usize::try_from(amount).unwrap_or(0);
        let bytes = std::slice::from_raw_parts(buffer.cast::<u8>(), length);
        let note = |bytes: &[u8]| {
            if let Some(watched) = watched(file) {
                let offset = u64::try_from(offset).unwrap_or(0);
                watched
                    .plan
                    .on_disk(|disk| disk.written(&watched.path, offset, bytes));
            }
        };
        match order(file, Call::Write) {
            Order::Pass => {
                let code = pass!(file, xWrite, buffer, amount, offset);
                if code == OK {
                    note(bytes);
                }
                code
            }
            Order::Fail(code) if code == ffi::SQLITE_FULL => {
                let half = amount / 2;
                if pass!(file, xWrite, buffer, half, offset) == OK {
                    note(&bytes[..length / 2]);
                }
                code
            }
            Order::Fail(code) => code,
            Order::PowerFails => {
                note(bytes);
                ffi::SQLITE_IOERR_WRITE
            }
        }
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: an open file of ours.
    unsafe {
        let order = order(file, Call::Truncate);
        let mut code = refusal(order);
        if order == Order::Pass {
            code = pass!(file, xTruncate, size);
        }
        if let Some(watched) = watched(file)
            && (code == OK || order == Order::PowerFails)
        {
            let size = u64::try_from(size).unwrap_or(0);
            watched
                .plan
                .on_disk(|disk| disk.truncated(&watched.path, size));
        }
        code
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: an open file of ours.
    unsafe {
        let code = refusal(order(file, Call::Sync));
        if code != OK {
            return code;
        }
        let Some(watched) = watched(file) else {
            return pass!(file, xSync, flags);
        };
        // The shim says what is durable; no power fails while a test runs, and real syncs are slow.
        watched.plan.on_disk(|disk| disk.synced(&watched.path));
        OK
    }
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut i64) -> c_int {
    ask!(Call::Size, file, xFileSize, size)
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    ask!(Call::Lock, file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file of ours.
    unsafe { pass!(file, xUnlock, level) }
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: an open file of ours.
    unsafe { pass!(file, xCheckReservedLock, out) }
}

unsafe extern "C" fn file_control(
    file: *mut sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: an open file of ours, and an argument that belongs to the operation.
    unsafe { pass!(file, xFileControl, operation, argument) }
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    // SAFETY: an open file of ours.
    unsafe { pass!(file, xSectorSize) }
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    // SAFETY: an open file of ours.
    unsafe { pass!(file, xDeviceCharacteristics) }
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    ask!(Call::ShmMap, file, xShmMap, page, size, extend, out)
}

unsafe extern "C" fn shm_lock(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        // SAFETY: an open file of ours.
        return unsafe { pass!(file, xShmLock, offset, count, flags) };
    }
    ask!(Call::ShmLock, file, xShmLock, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    // SAFETY: an open file of ours.
    unsafe {
        let (real, methods) = real(file);
        if let Some(barrier) = methods.xShmBarrier {
            barrier(real);
        }
    }
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: an open file of ours.
    unsafe { pass!(file, xShmUnmap, delete) }
}

/// The system's function with the system's own object, or an error where it has none.
macro_rules! system_call {
    ($method:ident $(, $argument:expr)*) => {{
        let system = system();
        match system.$method {
            // SAFETY: the arguments are SQLite's, for the same function of the system's.
            Some(method) => unsafe {
                method(ptr::from_ref(system).cast_mut() $(, $argument)*)
            },
            None => ffi::SQLITE_ERROR,
        }
    }};
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: the name is a string.
    let path = unsafe { path_of(name) };
    let plan = path.as_deref().and_then(Plan::of);
    if let Some(plan) = &plan {
        let code = refusal(plan.order(Call::Delete));
        if code != OK {
            return code;
        }
    }
    let code = system_call!(xDelete, name, sync);
    if let (OK, Some(plan), Some(path)) = (code, plan, path) {
        plan.on_disk(|disk| disk.deleted(&path));
    }
    code
}

unsafe extern "C" fn access(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the name is a string.
    let path = unsafe { path_of(name) };
    let plan = path.as_deref().and_then(|path: &Path| Plan::of(path));
    let code = plan.map_or(OK, |plan| refusal(plan.order(Call::Access)));
    if code != OK {
        return code;
    }
    system_call!(xAccess, name, flags, out)
}

unsafe extern "C" fn full_pathname(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    system_call!(xFullPathname, name, size, out)
}

unsafe extern "C" fn randomness(_: *mut sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    let length = usize::try_from(size).unwrap_or(0);
    // SAFETY: the buffer has `size` bytes.
    let buffer = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), length) };
    if ambient::fill(buffer) {
        return size;
    }
    system_call!(xRandomness, size, out)
}

unsafe extern "C" fn sleep(_: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    if ambient::wait(i64::from(microseconds)) {
        return microseconds;
    }
    system_call!(xSleep, microseconds)
}

unsafe extern "C" fn current_time(_: *mut sqlite3_vfs, out: *mut f64) -> c_int {
    match ambient::julian_ms() {
        Some(ms) => {
            // SAFETY: SQLite's own variable.
            unsafe { *out = ms as f64 / 86_400_000.0 };
            OK
        }
        None => system_call!(xCurrentTime, out),
    }
}

unsafe extern "C" fn current_time_int64(_: *mut sqlite3_vfs, out: *mut i64) -> c_int {
    match ambient::julian_ms() {
        Some(ms) => {
            // SAFETY: SQLite's own variable.
            unsafe { *out = ms };
            OK
        }
        None => system_call!(xCurrentTimeInt64, out),
    }
}

unsafe extern "C" fn last_error(_: *mut sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    system_call!(xGetLastError, size, out)
}
