//! A device as a process of its own, so that it can really be killed in the middle of a push.
//!
//! The demo starts its own program again, with arguments that no help shows; the token goes through
//! the environment, where other users do not see it.

use super::device::{Device, PATIENCE, open_engine};
use super::trouble;
use crate::{Failure, Report};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const TOKEN: &str = "SYNCLINE_TOKEN";

/// The device's process; killed when dropped.
pub(super) struct Victim(Child);

impl Victim {
    /// Starts a process that syncs the device's file over the device's link.
    pub(super) fn start(device: &Device) -> Result<Self, Failure> {
        let failed = |error| trouble("the device's process cannot be started", error);
        let program = std::env::current_exe().map_err(failed)?;
        let child = Command::new(program)
            .arg("demo")
            .arg("--device")
            .arg(&device.path)
            .arg("--link")
            .arg(device.link.url())
            .env(TOKEN, device.token())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        Ok(Self(child))
    }

    /// `kill -9`: no destructor runs, nothing is given back. Then waits until it is gone.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        let failed = |error| trouble("the device's process cannot be killed", error);
        self.0.kill().map_err(failed)?;
        self.0.wait().map_err(failed)?;
        Ok(())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Already gone in the ordinary case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the started process does: sync once, unless it is killed before.
pub(super) fn run(path: &Path, link: &str) -> Result<Report, Failure> {
    let token = std::env::var(TOKEN).map_err(|error| trouble(TOKEN, error))?;
    let sync = open_engine(path, link, &token)?;
    let end = sync.sync_blocking(PATIENCE);
    sync.close();
    tracing::debug!(?end, "the device's process was not killed");
    Ok(Report::silent())
}
