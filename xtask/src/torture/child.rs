//! A part's program: its output goes to a log, and it ends in time or is ended, with everything that it
//! started.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How a program ended.
#[derive(Debug)]
pub(super) enum Ended {
    With(ExitStatus),
    /// It did not end by itself and was ended.
    TooLate,
}

/// Runs a program with both outputs in a log, at most so long.
pub(super) fn run(command: &mut Command, log: &Path, most: Duration) -> io::Result<Ended> {
    let mut child = start(command, log)?;
    wait(&mut child, Instant::now() + most)
}

/// Starts a program with both outputs in a log.
pub(super) fn start(command: &mut Command, log: &Path) -> io::Result<Child> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = File::create(log)?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
}

/// Waits for its end until then.
pub(super) fn wait(child: &mut Child, until: Instant) -> io::Result<Ended> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::With(status));
        }
        if Instant::now() >= until {
            for id in descendants(child.id()) {
                end(id);
            }
            child.kill()?;
            child.wait()?;
            return Ok(Ended::TooLate);
        }
        sleep(Duration::from_millis(100));
    }
}

fn end(id: u32) {
    // It may have ended by itself.
    let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
}

/// The processes that a process started, and those that they started (Linux; elsewhere none is found).
fn descendants(id: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let own = entry.file_name().to_string_lossy().parse::<u32>();
        let stat = fs::read_to_string(entry.path().join("stat"));
        if let (Ok(own), Ok(stat)) = (own, stat)
            && let Some((_, plain)) = stat.rsplit_once(')')
            && let Some(parent) = plain.split_ascii_whitespace().nth(1)
            && let Ok(parent) = parent.parse::<u32>()
        {
            parents.push((own, parent));
        }
    }
    let mut found = vec![id];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        let children = parents.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(own, _)| *own));
        next += 1;
    }
    found.split_off(1)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_end_in_time_is_ended_with_its_children() {
        let log = std::env::temp_dir().join(format!("xtask-child-{}.log", std::process::id()));
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1000 & echo $!; wait"]);
        let ended = run(&mut shell, &log, Duration::from_millis(600)).unwrap();
        assert!(matches!(ended, Ended::TooLate));
        let child = fs::read_to_string(&log).unwrap();
        let state = format!("/proc/{}/stat", child.trim());
        // A signal takes its time on a busy machine, and so does whoever adopts what has ended.
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let stat = fs::read_to_string(&state).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                break;
            }
            assert!(Instant::now() < until, "{stat}");
            sleep(Duration::from_millis(10));
        }
        let quick = run(&mut Command::new("true"), &log, Duration::from_secs(60)).unwrap();
        assert!(matches!(quick, Ended::With(status) if status.success()));
        fs::remove_file(log).unwrap();
    }
}
