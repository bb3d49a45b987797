//! Runs an app's own resolver in a thread with a deadline: a panic, an answer that comes too late or
//! no answer at all turns into a question for a person, never into a crash or a loss.
//!
//! It is given clones of values, so a thread that is given up can go on without harm; it ends when the
//! resolver does. The transaction under way waits for it with the write lock held, which is why the
//! deadline is short.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use syncline_core::{ConflictInput, OwnedConflictInput, Resolution, Resolver};

/// The resolvers that an app brings along, by entity type.
#[derive(Default)]
pub(crate) struct Resolvers {
    by_type: BTreeMap<String, Named>,
    deadline_ms: u64,
    /// Types whose resolver missed its deadline, until the store is opened again.
    disabled: Mutex<BTreeSet<String>>,
}

#[derive(Clone)]
struct Named {
    name: String,
    resolver: Arc<dyn Resolver>,
}

impl fmt::Debug for Resolvers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_type.keys()).finish()
    }
}

impl Resolvers {
    pub(crate) fn new(given: &BTreeMap<String, Arc<dyn Resolver>>, deadline_ms: u64) -> Self {
        let named = given.iter().map(|(entity_type, resolver)| {
            let name = catch_unwind(AssertUnwindSafe(|| resolver.name().to_owned()));
            let name = name.unwrap_or_else(|_| "custom".to_owned());
            let resolver = Arc::clone(resolver);
            (entity_type.clone(), Named { name, resolver })
        });
        Self {
            by_type: named.collect(),
            deadline_ms,
            disabled: Mutex::default(),
        }
    }

    /// The one for a type, ready to be asked.
    pub(super) fn of(&self, entity_type: &str) -> Option<Guarded<'_>> {
        let named = self.by_type.get(entity_type)?;
        let disabled = self.disabled.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Guarded {
            all: self,
            entity_type: entity_type.to_owned(),
            named,
            disabled: disabled.contains(entity_type),
            was_late: AtomicBool::new(false),
        })
    }

    fn disable(&self, entity_type: &str) {
        let mut disabled = self.disabled.lock().unwrap_or_else(PoisonError::into_inner);
        disabled.insert(entity_type.to_owned());
    }
}

/// A resolver of the app's that can do no harm.
pub(super) struct Guarded<'a> {
    all: &'a Resolvers,
    entity_type: String,
    named: &'a Named,
    disabled: bool,
    was_late: AtomicBool,
}

impl Guarded<'_> {
    /// It missed its deadline just now, which was so many milliseconds.
    pub(super) fn was_late(&self) -> Option<u64> {
        (self.was_late.load(Ordering::Relaxed)).then_some(self.all.deadline_ms)
    }
}

impl Resolver for Guarded<'_> {
    fn name(&self) -> &str {
        &self.named.name
    }

    fn resolve(&self, input: &ConflictInput<'_>) -> Resolution {
        let name = &self.named.name;
        let manual = |reason: String| Resolution::Manual { reason };
        if self.disabled {
            return manual(format!(
                "the resolver {name} did not answer in time before and is disabled until the database is opened again"
            ));
        }
        let (sender, receiver) = channel();
        let (resolver, owned) = (
            Arc::clone(&self.named.resolver),
            OwnedConflictInput::from(input),
        );
        let thread = std::thread::Builder::new().name(format!("syncline resolver {name}"));
        let started = thread.spawn(move || {
            let answer = catch_unwind(AssertUnwindSafe(|| resolver.resolve(&owned.input())));
            // Nobody waits any more when it was too late.
            let _ = sender.send(answer.map_err(|panic| message(panic.as_ref())));
        });
        if let Err(error) = started {
            return manual(format!("the resolver {name} could not be run: {error}"));
        }
        match receiver.recv_timeout(Duration::from_millis(self.all.deadline_ms)) {
            Ok(Ok(resolution)) => resolution,
            Ok(Err(panic)) => manual(format!("the resolver {name} panicked: {panic}")),
            Err(RecvTimeoutError::Timeout) => {
                self.all.disable(&self.entity_type);
                self.was_late.store(true, Ordering::Relaxed);
                let ms = self.all.deadline_ms;
                manual(format!("the resolver {name} did not answer within {ms} ms"))
            }
            Err(RecvTimeoutError::Disconnected) => {
                manual(format!("the resolver {name} ended without an answer"))
            }
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}
