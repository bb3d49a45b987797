//! The name under which a process holds the lease, and whether a process of such a name is gone.
//!
//! On Linux the name says boot, process namespace, process id and start time. A holder of this very
//! machine and namespace that runs no more is known to be gone, and nobody has to wait for the end
//! of its lease. Where that cannot be told, it is not gone. Being wrong here would cost a fenced
//! transaction, no data (S2).

/// A name for this process, made unique by `name`.
pub fn of_this_process(name: &str) -> String {
    match machine().zip(start_of("self")) {
        Some((machine, start)) => {
            format!("{name}@{machine}/{}/{start}", std::process::id())
        }
        None => name.to_owned(),
    }
}

/// Whether the process that gave itself this name runs no more.
pub(crate) fn is_gone(holder: &str) -> bool {
    parts(holder).is_some_and(|(theirs, pid, start)| {
        machine().as_deref() == Some(theirs) && start_of(pid).as_deref() != Some(start)
    })
}

/// A holder for people: by its process id, where it runs or ran on this machine.
pub(crate) fn told(holder: &str) -> String {
    match parts(holder) {
        Some((theirs, pid, _)) if machine().as_deref() == Some(theirs) => format!("process {pid}"),
        Some((_, pid, _)) => {
            format!("process {pid} of another machine, or of this one before it was started anew")
        }
        None => holder.to_owned(),
    }
}

/// Machine, process id and start time in a name.
fn parts(holder: &str) -> Option<(&str, &str, &str)> {
    let (_, place) = holder.rsplit_once('@')?;
    let mut parts = place.rsplitn(3, '/');
    let (start, pid, theirs) = (parts.next()?, parts.next()?, parts.next()?);
    let is_pid = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    is_pid.then_some((theirs, pid, start))
}

/// The boot of this machine and the namespace of its process ids.
fn machine() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{}/{}", boot.trim(), namespace.display()))
}

/// When a process of this machine was started, in ticks since the boot; `None`: it runs no more.
fn start_of(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses can contain anything; what follows it is plain.
    let (_, plain) = stat.rsplit_once(')')?;
    let mut fields = plain.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X" | "x");
    // The state was field 3, the start is field 22 (proc_pid_stat(5)).
    fields.nth(18).filter(|_| !ended).map(str::to_owned)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_when_it_has_ended_and_not_before() {
        assert!(!is_gone(&of_this_process("x")), "this one runs");
        let place = of_this_process("x");
        let (before, start) = place.rsplit_once('/').unwrap();
        let (machine, _) = before.rsplit_once('/').unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let child_name = format!("{machine}/{}/{start}", child.id());
        child.wait().unwrap();
        assert!(is_gone(&child_name), "it has ended");
        let reused = format!("{before}/1");
        assert!(is_gone(&reused), "the number belongs to another process");
    }

    #[test]
    fn what_cannot_be_told_is_not_gone() {
        for holder in [
            "",
            "abc",
            "x@",
            "x@//",
            "x@otherboot/pid:[1]/1/1",
            "x@a/b/../1",
            "x@1/2",
        ] {
            assert!(!is_gone(holder), "{holder}");
        }
    }
}
