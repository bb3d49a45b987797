//! Who listens to which scope, and what each has been told: the memory behind `GET /v1/live`.
//!
//! Of this process only, and never more than one number for each listener, so that a slow one costs
//! no more than a quick one and a burst of commits becomes few hints. A hint is only a hint: nothing
//! here is durable. What other processes commit is found by [`Hub::looked`], which is told now and
//! then where the heads are; a storage that hears of it earlier only has to look earlier.

use crate::{Identity, Now};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use syncline_protocol::{ClientId, Epoch, Head, Principal, Scope};
use tokio::sync::watch;

/// How many streams there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LiveBounds {
    /// Of this process.
    pub(crate) streams: usize,
    /// Of one principal.
    pub(crate) streams_per_principal: usize,
}

/// Why a stream is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Server,
    Principal,
}

/// One commit's effect on a feed.
pub(crate) struct Move<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) scope: &'a Scope,
    pub(crate) epoch: &'a Epoch,
    /// The head before it.
    pub(crate) from: i64,
    /// The head after it.
    pub(crate) to: i64,
    /// The installation that pushed, if it is known.
    pub(crate) by: Option<&'a ClientId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    listeners: Mutex<Listeners>,
}

/// Tenant and scope.
type Feed = (String, Scope);

#[derive(Debug, Default)]
struct Listeners {
    last_id: u64,
    feeds: BTreeMap<Feed, Audience>,
}

/// Everyone who listens to one feed.
#[derive(Debug, Default)]
struct Audience {
    listeners: BTreeMap<u64, Listener>,
    /// The head as commits of this process have told.
    known: i64,
    /// A head beyond that, seen by a look; a commit of our own that has not told yet, perhaps.
    ahead: Option<i64>,
}

#[derive(Debug)]
struct Listener {
    principal: Principal,
    client: Option<ClientId>,
    /// None until it is known.
    epoch: Option<Epoch>,
    /// Up to here it was told, or wrote itself.
    seen: i64,
    news: watch::Sender<i64>,
}

impl Listener {
    fn hears(&mut self, moved: &Move<'_>) {
        let own = self.client.is_some() && self.client.as_ref() == moved.by;
        if own && moved.from <= self.seen {
            self.seen = self.seen.max(moved.to);
        } else if moved.to > self.seen {
            self.seen = moved.to;
            self.news.send_replace(moved.to);
        }
    }
}

/// A listener's own end; dropping it ends the listening.
#[derive(Debug)]
pub(crate) struct Subscription {
    hub: Arc<Hub>,
    feed: Feed,
    id: u64,
    news: watch::Receiver<i64>,
    head: Head,
    /// When the token ends, in milliseconds since the Unix epoch.
    pub(crate) until_ms: i64,
}

impl Subscription {
    /// The head as it was told last.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Waits until there is something to tell, without taking it; false when the stream is to end:
    /// the history is another one, or the same device has opened another stream.
    pub(crate) async fn news(&mut self) -> bool {
        let told = self.head.position;
        let news = self.news.wait_for(|position| *position > told).await;
        news.is_ok()
    }

    /// Takes what there is to tell.
    pub(crate) fn take(&mut self) -> &Head {
        self.head.position = self.head.position.max(*self.news.borrow());
        &self.head
    }

    /// For how long the token is still valid, in milliseconds.
    pub(crate) fn remaining_ms(&self, now: Now) -> u64 {
        u64::try_from(self.until_ms.saturating_sub(now.unix_ms)).unwrap_or(0)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        crate::meter::stream_ended();
        self.hub.leave(&self.feed, self.id);
    }
}

impl Hub {
    /// Begins to listen. From here on no move is missed, so the head is to be read after this and
    /// given to [`Subscription::begin`].
    pub(crate) fn join(
        self: &Arc<Self>,
        identity: &Identity,
        scope: Scope,
        client: Option<ClientId>,
        bounds: LiveBounds,
    ) -> Result<Subscription, Full> {
        let mut all = self.lock();
        let principal = &identity.principal;
        let feed = (principal.tenant.clone(), scope.clone());
        // A device that lost its connection comes back before the old one is known to be dead.
        let audience = all.feeds.entry(feed.clone()).or_default();
        let same = |other: &Listener| {
            client.is_some() && other.client == client && other.principal == *principal
        };
        audience.listeners.retain(|_, other| !same(other));
        let every = || all.feeds.values().flat_map(|one| one.listeners.values());
        let own = every().filter(|other| other.principal == *principal);
        let full = match (every().count(), own.count()) {
            (_, own) if own >= bounds.streams_per_principal => Some(Full::Principal),
            (all, _) if all >= bounds.streams => Some(Full::Server),
            _ => None,
        };
        if let Some(full) = full {
            all.forget_if_deserted(&feed);
            return Err(full);
        }
        all.last_id += 1;
        let id = all.last_id;
        let (sender, news) = watch::channel(i64::MIN);
        let listener = Listener {
            principal: principal.clone(),
            client,
            epoch: None,
            seen: i64::MIN,
            news: sender,
        };
        let audience = all.feeds.entry(feed.clone()).or_default();
        audience.listeners.insert(id, listener);
        crate::meter::stream_opened();
        Ok(Subscription {
            hub: Arc::clone(self),
            feed,
            id,
            news,
            head: Head {
                scope,
                epoch: Epoch::new(""),
                position: 0,
            },
            until_ms: 0,
        })
    }

    /// A commit of this process moved a head.
    pub(crate) fn moved(&self, moved: &Move<'_>) {
        let mut all = self.lock();
        let feed = (moved.tenant.to_owned(), moved.scope.clone());
        if let Some(audience) = all.feeds.get_mut(&feed) {
            audience.known = audience.known.max(moved.to);
            audience.hear(moved);
        }
    }

    /// The feeds that somebody listens to.
    pub(crate) fn feeds(&self) -> Vec<Feed> {
        self.lock().feeds.keys().cloned().collect()
    }

    /// A look at the storage found the heads here. What no commit of this process has told by the
    /// look after next is news of others.
    pub(crate) fn looked(&self, epoch: &Epoch, heads: &[(Feed, i64)]) {
        let mut all = self.lock();
        for (feed, head) in heads {
            let Some(audience) = all.feeds.get_mut(feed) else {
                continue;
            };
            let others = audience.ahead.filter(|ahead| *ahead > audience.known);
            if let Some(ahead) = others {
                audience.known = ahead;
            }
            audience.ahead = Some(*head).filter(|head| *head > audience.known);
            audience.hear(&Move {
                tenant: &feed.0,
                scope: &feed.1,
                epoch,
                from: i64::MAX,
                to: others.unwrap_or(i64::MIN),
                by: None,
            });
        }
    }

    fn leave(&self, feed: &Feed, id: u64) {
        let mut all = self.lock();
        if let Some(audience) = all.feeds.get_mut(feed) {
            audience.listeners.remove(&id);
        }
        all.forget_if_deserted(feed);
    }

    fn lock(&self) -> MutexGuard<'_, Listeners> {
        // Nothing between lock and unlock leaves it half changed.
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Audience {
    /// Tells everyone whom it concerns; whoever listens to another history is to connect anew.
    fn hear(&mut self, moved: &Move<'_>) {
        self.listeners.retain(|_, listener| {
            let same = listener.epoch.as_ref().is_none_or(|own| own == moved.epoch);
            if same {
                listener.hears(moved);
            }
            same
        });
    }
}

impl Listeners {
    fn forget_if_deserted(&mut self, feed: &Feed) {
        if self
            .feeds
            .get(feed)
            .is_some_and(|one| one.listeners.is_empty())
        {
            self.feeds.remove(feed);
        }
    }
}

impl Subscription {
    /// The head as it was read after joining; it is what the stream tells first.
    pub(crate) fn begin(&mut self, epoch: Epoch, position: i64) {
        let mut all = self.hub.lock();
        let Some(audience) = all.feeds.get_mut(&self.feed) else {
            return;
        };
        audience.known = audience.known.max(position);
        if let Some(listener) = audience.listeners.get_mut(&self.id) {
            listener.epoch = Some(epoch.clone());
            listener.seen = listener.seen.max(position);
        }
        self.head.epoch = epoch;
        self.head.position = position;
    }
}
