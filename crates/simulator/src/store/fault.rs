//! What can go wrong with one request or its answer. Each fault is one line of the table below, with
//! its name for the report, and one arm in [`plan`] (what happens on the way) or in
//! [`alter`](super::answer::alter) (what is done to the answer). See `docs/howto/add-a-fault.md`.

use serde::{Deserialize, Serialize};

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal,)*) => {
        /// Something that goes wrong with one request or its answer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum NetFault {
            $($(#[$doc])* $fault,)*
        }

        impl NetFault {
            /// All of them, to draw from.
            pub const ALL: &'static [Self] = &[$(Self::$fault,)*];

            /// Its name in the report.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$fault => concat!("network: ", $name),)*
                }
            }
        }
    };
}

faults! {
    /// The request never arrives.
    LoseRequest = "request lost",
    /// It is handled; its answer does not come back.
    LoseAnswer = "answer lost",
    /// It is handled, and its answer comes after the client has given up waiting.
    LateAnswer = "answer after the time-out",
    /// It arrives after the client has given up waiting.
    LateRequest = "request after the time-out",
    /// The answer comes slowly, just before the client gives up.
    SlowAnswer = "slow answer",
    /// It arrives twice; the second answer comes back.
    Repeat = "request repeated",
    /// It is handled and answered, and arrives once more a minute later.
    RepeatLate = "request repeated a minute later",
    /// The answer comes twice.
    RepeatAnswer = "answer repeated",
    /// The server fails before it does anything: 500.
    Status500 = "status 500",
    /// It is overloaded and asks for two seconds: 503.
    Status503 = "status 503",
    /// It asks for less: 429 with an absurd wait.
    Status429 = "status 429",
    /// It was too slow to read: 408.
    Status408 = "status 408",
    /// It says that it cannot be read: 400.
    Status400 = "status 400",
    /// It says that nothing of this is allowed: 403.
    Status403 = "status 403",
    /// A firewall answers 403 with a page of HTML.
    Foreign403 = "403 of a stranger",
    /// A gateway does not reach the server: 502 with a page of HTML.
    Gateway502 = "502 of a gateway",
    /// It has waited too long for it: 504.
    Gateway504 = "504 of a gateway",
    /// Somebody else answers 404 with a page of HTML.
    Foreign404 = "404 of a stranger",
    /// The server itself has no such path.
    Status404 = "status 404",
    /// Too large: 413.
    Status413 = "status 413",
    /// Another version of the protocol: 426.
    Status426 = "status 426",
    /// The token has expired.
    TokenExpired = "token expired",
    /// The token has expired, and there is no new one for a while.
    TokenRefused = "token expired and none new",
    /// A captive portal answers 200 with HTML.
    Portal = "captive portal",
    /// The answer's bytes are garbled.
    Garbled = "answer garbled",
    /// The answer is cut in the middle.
    Truncated = "answer truncated",
    /// The answer has another content type.
    ContentType = "wrong content type",
    /// The answer is to another request.
    ForeignEcho = "answer to another request",
    /// A push's answer lacks a result.
    MissingResult = "result missing",
    /// It has a result of a key that nobody sent.
    ExtraResult = "result of a foreign key",
    /// Its results come in another order.
    ReorderedResults = "results reordered",
    /// It has an outcome that does not exist.
    UnknownOutcome = "unknown outcome",
    /// Of a push only the first half was done: the server answers `retry` for the rest.
    PartialBatch = "batch done in part",
    /// A page's count is wrong.
    WrongCount = "wrong count of a page",
    /// A page has a change of a type that nobody knows.
    UnknownType = "change of an unknown type",
    /// A page has a change that is none.
    InvalidChange = "change that is none",
    /// A page's changes come in another order.
    ReorderedPage = "page reordered",
    /// A page has a change twice.
    RepeatedChange = "change repeated in a page",
    /// A page's position is smaller than where it was asked from.
    PositionBack = "position goes back",
    /// A page says that more follows, and its cursor is the one that it was asked with.
    SameCursor = "page that leads back to itself",
    /// The last page of this cursor comes once more.
    OldPage = "old page again",
}

impl NetFault {
    /// Whether what comes back is nonsense or somebody else's, and must change nothing (F:S25).
    pub(crate) fn is_nonsense(self) -> bool {
        matches!(
            self,
            Self::Foreign404
                | Self::Foreign403
                | Self::Gateway502
                | Self::Gateway504
                | Self::Portal
                | Self::Garbled
                | Self::Truncated
                | Self::ContentType
                | Self::ForeignEcho
                | Self::UnknownOutcome
                | Self::WrongCount
                | Self::SameCursor
                | Self::PositionBack
        )
    }

    /// Whether nonsense has the form of an answer, so that only what it says tells.
    pub(crate) fn reads_well(self) -> bool {
        matches!(self, Self::SameCursor | Self::PositionBack)
    }

    /// Whether it is about when and whether messages arrive, and so strikes as soon as one is sent.
    pub(crate) fn is_on_the_way(self) -> bool {
        let way = plan(Some(self), [1, 1]);
        way != plan(None, [1, 1]) && !way.instead
    }
}

/// After this long a client gives up waiting, in milliseconds.
pub(crate) const TIME_OUT_MS: u64 = 30_000;

/// What happens to a request on its way. Times in milliseconds from when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// When it arrives at the server; the answer is to this one.
    pub(crate) arrives: Option<u64>,
    /// When it arrives once more, unseen by the client.
    pub(crate) also: Option<u64>,
    /// How long the answer is under way; `None`: it does not come back.
    pub(crate) back: Option<u64>,
    /// And when it comes once more.
    pub(crate) back_again: Option<u64>,
    /// The server does not get to handle it: this is the answer instead.
    pub(crate) instead: bool,
}

/// What happens to a request that is met by this fault, between messages of this latency.
pub(crate) fn plan(fault: Option<NetFault>, latency: [u64; 2]) -> Plan {
    let [there, back] = latency;
    let plain = Plan {
        arrives: Some(there),
        also: None,
        back: Some(back),
        back_again: None,
        instead: false,
    };
    use NetFault as F;
    match fault {
        Some(F::LoseRequest) => Plan {
            arrives: None,
            ..plain
        },
        Some(F::LoseAnswer) => Plan {
            back: None,
            ..plain
        },
        Some(F::LateAnswer) => Plan {
            back: Some(TIME_OUT_MS + 1 + back),
            ..plain
        },
        Some(F::SlowAnswer) => Plan {
            back: Some(TIME_OUT_MS.saturating_sub(there + 1).max(back)),
            ..plain
        },
        Some(F::LateRequest) => Plan {
            arrives: Some(TIME_OUT_MS + 1 + there),
            ..plain
        },
        Some(F::Repeat) => Plan {
            also: Some(there / 2),
            ..plain
        },
        Some(F::RepeatLate) => Plan {
            also: Some(there + 60_000),
            ..plain
        },
        Some(F::RepeatAnswer) => Plan {
            back_again: Some(back + 10),
            ..plain
        },
        Some(
            F::Status500
            | F::Status503
            | F::Status429
            | F::Status408
            | F::Status400
            | F::Status403
            | F::Foreign403
            | F::Gateway502
            | F::Gateway504
            | F::Foreign404
            | F::Status404
            | F::Status413
            | F::Status426
            | F::TokenExpired
            | F::TokenRefused
            | F::Portal,
        ) => Plan {
            instead: true,
            ..plain
        },
        _ => plain,
    }
}
