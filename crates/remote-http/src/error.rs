//! Why a remote cannot be built. What goes wrong later is a [`syncline_core::RemoteError`].

/// Why [`HttpRemoteBuilder::build`](crate::HttpRemoteBuilder::build) refuses. Nothing was sent;
/// trying again with the same settings does not help. No message contains a token or a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpRemoteError {
    /// The address is not an absolute `http` or `https` URL without query and fragment.
    #[error("the remote's address is not usable: {detail}; give it as https://host[:port][/path]")]
    BadUrl {
        /// What is wrong with it.
        detail: String,
    },
    /// The address contains a user name or a password, which would end up in logs.
    #[error(
        "the remote's address contains a user name or password; take them out and give a token instead"
    )]
    UrlWithCredentials,
    /// Plain `http` to another machine would show token and data to everyone on the way.
    #[error(
        "plain http to {host} is refused, since token and data would travel unprotected; \
         use https, or allow it with PlainHttp::Anywhere"
    )]
    PlainHttp {
        /// The host of the address.
        host: String,
    },
    /// The static token cannot be sent in a header.
    #[error("the token cannot be used: {detail}")]
    BadToken {
        /// What is wrong with it; never the token.
        detail: String,
    },
    /// A time-out or size that would let no request succeed.
    #[error("{setting} must be more than zero")]
    ZeroSetting {
        /// Which setting.
        setting: &'static str,
    },
    /// This build has no transport of its own, and none was given.
    #[error(
        "this build speaks no HTTP by itself; give it a transport, or enable the feature reqwest"
    )]
    NoTransport,
    /// The HTTP client could not be set up: the system's certificates, mostly.
    #[error("the HTTP client cannot be set up: {detail}")]
    Client {
        /// What it said.
        detail: String,
    },
}
