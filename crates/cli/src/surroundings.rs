//! What `run` notices of the machine that it runs on: a network that comes and goes, and that it slept.
//!
//! Listens to the system, looks now and then at what it says anyway, asks nobody, and decides nothing.
//! Where the system does not say it (the routes, beyond Linux), nothing is noticed: then the back-off
//! finds the network.

#[cfg(target_os = "linux")]
mod told;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::time::{Interval, MissedTickBehavior};

/// How often is looked without being told.
const LOOK: Duration = Duration::from_secs(10);

/// Whoever did not get to look for so much longer was asleep or stopped.
const NAP: Duration = Duration::from_secs(15);

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noticed {
    /// There is a network, and it is another one than before.
    NetworkAvailable,
    /// There is no network any more.
    NetworkLost,
    /// The machine or the process was asleep for a while.
    Woken,
}

/// What is watched.
pub(crate) struct Surroundings {
    looks: Interval,
    network: Option<Network>,
    #[cfg(target_os = "linux")]
    told: Option<told::Told>,
    sleep: Sleep,
}

impl Surroundings {
    /// Watches from now on. A server on this very machine needs no network. To be called inside a
    /// runtime.
    pub(crate) fn watch(remote: &str) -> Self {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let network = (!is_here(remote)).then(|| Network::of(Path::new("/proc/net")));
        let network = network.flatten();
        Self {
            looks,
            #[cfg(target_os = "linux")]
            told: network.as_ref().and_then(|_| {
                let unheard = |error| tracing::debug!(%error, "the system does not tell of routes");
                told::Told::listen().map_err(unheard).ok()
            }),
            network,
            sleep: Sleep::new(Instant::now(), elsewhere()),
        }
    }

    /// Waits for the next event; dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Noticed {
        loop {
            self.look_out().await;
            let changed = self.network.as_mut().and_then(Network::look);
            let woken = self.sleep.look(Instant::now(), elsewhere());
            if let Some(noticed) = changed.or(woken.then_some(Noticed::Woken)) {
                return noticed;
            }
        }
    }

    /// Until it is time to look.
    async fn look_out(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some(told) = &self.told {
            tokio::select! {
                _ = self.looks.tick() => {}
                heard = told.changed() => if let Err(error) = heard {
                    tracing::debug!(%error, "the system tells no more of routes");
                    self.told = None;
                },
            }
            return;
        }
        self.looks.tick().await;
    }
}

fn is_here(remote: &str) -> bool {
    let host = remote.split_once("://").map_or(remote, |(_, rest)| rest);
    ["localhost", "127.", "[::1]"]
        .iter()
        .any(|here| host.starts_with(here))
}

/// The routes of this machine.
struct Network {
    folder: PathBuf,
    seen: BTreeSet<String>,
}

impl Network {
    /// `None` where the system has no such files.
    fn of(folder: &Path) -> Option<Self> {
        folder.join("route").exists().then(|| Self {
            folder: folder.to_owned(),
            seen: routes(folder),
        })
    }

    fn look(&mut self) -> Option<Noticed> {
        let routes = routes(&self.folder);
        if routes == self.seen {
            return None;
        }
        let gone = routes.is_empty();
        self.seen = routes;
        Some(match gone {
            true => Noticed::NetworkLost,
            false => Noticed::NetworkAvailable,
        })
    }
}

/// The ways out, as far as there are any; else those to neighbours. Both files are described in
/// `Documentation/networking` of the Linux kernel and written by its `fib_route_seq_show` and
/// `rt6_info_route`.
fn routes(folder: &Path) -> BTreeSet<String> {
    let read = |name| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let mut routes: Vec<Route> = read("route").lines().filter_map(Route::v4).collect();
    routes.extend(read("ipv6_route").lines().filter_map(Route::v6));
    let any_out = routes.iter().any(|route| route.out);
    let routes = routes.into_iter().filter(|route| route.out || !any_out);
    routes.map(|route| route.name).collect()
}

struct Route {
    name: String,
    /// It leads everywhere.
    out: bool,
}

const UP: u32 = 0x1;
const REJECTS: u32 = 0x200;
const LOCAL: u32 = 0x8000_0000;

impl Route {
    fn v4(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [interface, to, gateway, flags, _, _, _, mask, ..] = fields[..] else {
            return None;
        };
        Self::usable(flags, interface).then(|| Self {
            name: format!("{interface} {to} {gateway} {mask}"),
            out: to == "00000000" && mask == "00000000",
        })
    }

    fn v6(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [to, bits, _, _, gateway, _, _, _, flags, interface] = fields[..] else {
            return None;
        };
        // Addresses of a link and of groups are there wherever a cable is.
        let of_link = to.starts_with("fe8") || to.starts_with("ff");
        (Self::usable(flags, interface) && !of_link).then(|| Self {
            name: format!("{interface} {to}/{bits} {gateway}"),
            out: bits == "00",
        })
    }

    fn usable(flags: &str, interface: &str) -> bool {
        let Ok(flags) = u32::from_str_radix(flags, 16) else {
            return false;
        };
        interface != "lo" && flags & UP != 0 && flags & (REJECTS | LOCAL) == 0
    }
}

/// Notices that time passed during which nobody could look.
struct Sleep {
    looked: Instant,
    elsewhere: Option<Duration>,
}

impl Sleep {
    fn new(now: Instant, elsewhere: Option<Duration>) -> Self {
        Self {
            looked: now,
            elsewhere,
        }
    }

    fn look(&mut self, now: Instant, elsewhere: Option<Duration>) -> bool {
        let here = now.saturating_duration_since(self.looked);
        let there = elsewhere
            .zip(self.elsewhere)
            .and_then(|(now, then)| now.checked_sub(then));
        *self = Self::new(now, elsewhere);
        here.max(there.unwrap_or_default()) >= LOOK + NAP
    }
}

/// A clock that goes on while the machine sleeps, unlike [`Instant`]. On Linux it is the time since the
/// boot, which nobody sets. Elsewhere it is the wall clock: setting that forwards costs one sync.
fn elsewhere() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).try_into();
    #[cfg(not(target_os = "linux"))]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
    const OUT: &str = "wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n";
    const NEAR: &str = "wlan0\t0002A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0\n";
    const BRIDGE: &str = "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
    const V6_OUT: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 wlan0\n";
    const V6_NONE: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
    const V6_LINK: &str = "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 wlan0\n";

    #[test]
    fn a_network_that_comes_changes_and_goes_is_noticed_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let write = |v4: &[&str], v6: &[&str]| {
            let text = format!("{HEAD}{}", v4.concat());
            std::fs::write(folder.path().join("route"), text).unwrap();
            std::fs::write(folder.path().join("ipv6_route"), v6.concat()).unwrap();
        };
        write(&[], &[V6_NONE, V6_LINK]);
        let mut network = Network::of(folder.path()).unwrap();
        assert_eq!(network.look(), None, "a cable is no network");
        for (v4, v6, expected) in [
            (&[NEAR][..], &[V6_NONE][..], Some(Noticed::NetworkAvailable)),
            (&[NEAR, OUT], &[V6_NONE], Some(Noticed::NetworkAvailable)),
            (&[NEAR, OUT, BRIDGE], &[V6_NONE, V6_LINK], None),
            (&[NEAR, OUT], &[V6_OUT], Some(Noticed::NetworkAvailable)),
            (&[NEAR], &[V6_OUT], Some(Noticed::NetworkAvailable)),
            (&[], &[V6_LINK], Some(Noticed::NetworkLost)),
            (&[], &[], None),
        ] {
            write(v4, v6);
            assert_eq!(network.look(), expected, "{v4:?} {v6:?}");
        }
    }

    #[test]
    fn garbled_files_are_no_network_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Network::of(folder.path()).is_none());
        for text in ["", "a b c", "wlan0 0 0 zz 0 0 0 0", "\u{0}\n\n x"] {
            std::fs::write(folder.path().join("route"), text).unwrap();
            std::fs::write(folder.path().join("ipv6_route"), text).unwrap();
            assert!(routes(folder.path()).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn sleep_is_noticed_by_either_clock_and_a_clock_set_back_is_none() {
        let second = Duration::from_secs(1);
        let begun = Instant::now();
        let at = |seconds: u32| begun + second * seconds;
        let mut sleep = Sleep::new(begun, Some(100 * second));
        assert!(!sleep.look(at(10), Some(110 * second)));
        assert!(sleep.look(at(20), Some(220 * second)), "the machine slept");
        assert!(sleep.look(at(60), Some(260 * second)), "it was stopped");
        assert!(!sleep.look(at(70), Some(5 * second)), "set back");
        assert!(!sleep.look(at(80), None));
    }

    #[test]
    fn a_server_on_this_machine_needs_no_network() {
        for here in [
            "http://127.0.0.1:8080",
            "http://localhost:1",
            "http://[::1]",
        ] {
            assert!(is_here(here));
        }
        assert!(!is_here("https://sync.example.org"));
    }
}
