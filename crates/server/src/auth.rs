//! Who is asking: bearer tokens, JSON Web Tokens signed with HMAC-SHA256.
//!
//! The tenant comes from a verified token and from nowhere else. The algorithm is fixed here and
//! never taken from the token; expiry is judged by the time that is passed in, never by a clock.
//! Never logs a token nor says why a signature did not hold.

use crate::problems::Refusal;
use crate::{Headers, Now};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use std::fmt;
use syncline_protocol::{Access, Principal};

/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;

const AUDIENCE: &str = "syncline";
const LEEWAY_S: f64 = 60.0;
const MIN_SECRET_BYTES: usize = 32;
const MAX_NAME_BYTES: usize = 128;

/// Why a secret or a token could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The secret could be guessed. Another, random one is needed.
    #[error("the token secret has {0} bytes; take at least {MIN_SECRET_BYTES} random ones")]
    WeakSecret(usize),
    /// Tenant or subject cannot stand in a token.
    #[error("{0:?} is not a tenant or subject: 1 to 128 bytes without control characters")]
    BadName(String),
    /// The token could not be signed.
    #[error("the token could not be signed")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// A verified caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub principal: Principal,
    /// What it may do in its tenant.
    pub access: Access,
}

/// A caller whose token held, and until when it holds.
pub(crate) struct Verified {
    pub(crate) identity: Identity,
    /// Milliseconds since the Unix epoch, the leeway included.
    pub(crate) until_ms: i64,
}

/// Checks tokens.
pub struct Authenticator {
    key: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator(secret withheld)")
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    aud: Audience,
    exp: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<f64>,
    #[serde(default = "default_tenant")]
    tenant: String,
    #[serde(default = "default_access")]
    access: Access,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

fn default_tenant() -> String {
    "default".to_owned()
}

fn default_access() -> Access {
    Access::Write
}

impl Authenticator {
    /// Accepts tokens signed with this secret by HMAC-SHA256.
    pub fn hs256(secret: &[u8]) -> Result<Self, AuthError> {
        check_secret(secret)?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        validation.validate_exp = false; // judged below, by the time passed in
        validation.validate_nbf = false;
        Ok(Self {
            key: DecodingKey::from_secret(secret),
            validation,
        })
    }

    /// Who sends these headers.
    pub(crate) fn authenticate(&self, headers: &Headers, now: Now) -> Result<Verified, Refusal> {
        let token = bearer(headers)?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid());
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|_| invalid())?
            .claims;
        let now_s = now.unix_ms as f64 / 1000.0;
        if claims.exp + LEEWAY_S <= now_s {
            return Err(Refusal::unauthorized(
                "token-expired",
                "The token has expired",
            ));
        }
        let premature = claims.nbf.is_some_and(|nbf| nbf - LEEWAY_S > now_s);
        let audience = match &claims.aud {
            Audience::One(one) => one == AUDIENCE,
            Audience::Many(many) => many.iter().any(|one| one == AUDIENCE),
        };
        if premature || !audience || !is_name(&claims.sub) || !is_name(&claims.tenant) {
            return Err(invalid());
        }
        let identity = Identity {
            principal: Principal {
                tenant: claims.tenant,
                subject: claims.sub,
            },
            access: claims.access,
        };
        Ok(Verified {
            identity,
            // A number beyond any date becomes the last one there is.
            until_ms: ((claims.exp + LEEWAY_S) * 1000.0) as i64,
        })
    }
}

/// Makes a token that [`Authenticator::hs256`] with the same secret accepts from `now` on for
/// `lifetime_s` seconds.
pub fn issue_token(
    secret: &[u8],
    identity: &Identity,
    now: Now,
    lifetime_s: u32,
) -> Result<String, AuthError> {
    check_secret(secret)?;
    let Principal { tenant, subject } = &identity.principal;
    if let Some(bad) = [tenant, subject].into_iter().find(|name| !is_name(name)) {
        return Err(AuthError::BadName(bad.clone()));
    }
    let claims = Claims {
        sub: subject.clone(),
        aud: Audience::One(AUDIENCE.to_owned()),
        exp: (now.unix_ms / 1000) as f64 + f64::from(lifetime_s),
        nbf: None,
        tenant: tenant.clone(),
        access: identity.access,
    };
    let key = EncodingKey::from_secret(secret);
    Ok(jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &key,
    )?)
}

fn check_secret(secret: &[u8]) -> Result<(), AuthError> {
    if secret.len() < MIN_SECRET_BYTES {
        return Err(AuthError::WeakSecret(secret.len()));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn bearer(headers: &Headers) -> Result<&str, Refusal> {
    let mut lines = headers
        .iter()
        .filter_map(|(name, value)| (name == "authorization").then_some(value));
    let missing = || Refusal::unauthorized("token-missing", "A bearer token is needed");
    let line = lines.next().ok_or_else(missing)?;
    if lines.next().is_some() {
        return Err(invalid());
    }
    let (scheme, token) = line.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    Ok(token.trim())
}

fn invalid() -> Refusal {
    Refusal::unauthorized("token-invalid", "The token is not valid here")
}
