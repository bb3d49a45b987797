//! A server in a process of its own, which can be killed and comes back on the same port.

use crate::PATIENCE;
use crate::process::Running;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use syncline_protocol::{Access, Principal};
use syncline_server::{Identity, Now, issue_token};

/// What the tests' own server signs tokens with.
pub const SECRET: &[u8] = b"known to every process of a test";

/// A token of the tests' own server for the one account there is, valid for an hour.
pub fn token() -> String {
    let identity = Identity {
        principal: Principal {
            tenant: "default".to_owned(),
            subject: "somebody".to_owned(),
        },
        access: Access::Write,
    };
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let unix_ms = i64::try_from(since.unwrap().as_millis()).unwrap();
    issue_token(SECRET, &identity, Now::from_unix_ms(unix_ms), 3600).unwrap()
}

type MakeCommand = Box<dyn Fn(&str) -> Command + Send>;

/// A server process.
pub struct Server {
    make: MakeCommand,
    running: Option<Running>,
    address: SocketAddr,
}

impl Server {
    /// Starts the tests' own server program on a data directory.
    pub fn own(program: &str, data: &Path, config: Option<&Path>) -> Self {
        let (program, data) = (program.to_owned(), data.to_owned());
        let config = config.map(Path::to_owned);
        Self::start(move |listen| {
            let mut command = Command::new(&program);
            command.arg(&data).arg(listen);
            command.args(&config);
            command
        })
    }

    /// Starts a server by the command that `make` makes for a listen address. It has to print
    /// `listening on http://ADDRESS` when it is ready.
    pub fn start(make: impl Fn(&str) -> Command + Send + 'static) -> Self {
        let running = Running::start(&mut make("127.0.0.1:0"));
        let address = ready(&running).unwrap_or_else(|| panic!("no server: {}", running.errors()));
        Self {
            make: Box::new(make),
            running: Some(running),
            address,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }

    /// Starts it again on the same data and the same port.
    pub fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let running = Running::start(&mut (self.make)(&self.address.to_string()));
            if let Some(address) = ready(&running) {
                assert_eq!(address, self.address);
                self.running = Some(running);
                return;
            }
            // Somebody's passing connection may have the port for a moment.
            assert!(Instant::now() < deadline, "{}", running.errors());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn ready(running: &Running) -> Option<SocketAddr> {
    let address = running.line_after("listening on http://", PATIENCE)?;
    Some(address.trim().parse().expect("an address"))
}
