//! Tokens: whoever is not who they say gets 401, and nothing says why a signature failed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use common::*;
use hmac::{Hmac, Mac};
use serde_json::{Value as Json, json};
use sha2::Sha256;
use syncline_protocol::{Access, Hello};
use syncline_server::{AuthError, Authenticator, MemoryStorage, Request, issue_token};

const NOW_S: i64 = 1_800_000_000;

fn sign(secret: &[u8], header: &Json, claims: &Json) -> String {
    let part = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    let mac = mac.chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
}

fn hs256() -> Json {
    json!({"alg": "HS256", "typ": "JWT"})
}

fn claims(change: Json) -> Json {
    let mut claims = json!({"sub": "ann", "tenant": "acme", "aud": "syncline", "exp": NOW_S + 60});
    for (name, value) in change.as_object().unwrap() {
        if value == "absent" {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn ask(server: &Server<MemoryStorage>, authorization: Option<&str>) -> syncline_server::Response {
    let mut request = Request::new("GET", "/v1/hello").header("syncline-protocol", "2026-11-01");
    if let Some(line) = authorization {
        request = request.header("authorization", line);
    }
    server.send(&request)
}

fn with_claims(server: &Server<MemoryStorage>, change: Json) -> syncline_server::Response {
    let token = sign(SECRET, &hs256(), &claims(change));
    ask(server, Some(&format!("Bearer {token}")))
}

#[test]
fn good_tokens() {
    let server = server();
    for change in [
        json!({}),
        json!({"aud": ["other", "syncline"]}),
        json!({"nbf": NOW_S + 60}),
        json!({"exp": NOW_S - 59}),
        json!({"exp": NOW_S + 100, "iat": NOW_S + 9999, "kid": "../../x"}),
        json!({"exp": (NOW_S + 5) as f64 + 0.5}),
        json!({"access": "read"}),
        json!({"sub": "Ünï / cödé"}),
    ] {
        let response = with_claims(&server, change.clone());
        assert_eq!(response.status, 200, "{change}: {}", text(&response));
    }
    let response = with_claims(&server, json!({"tenant": "absent", "access": "read"}));
    let hello: Hello = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(hello.principal.tenant, "default");
    assert_eq!(hello.scopes[0].access, Access::Read);
    let token = server.token(&ann());
    assert_eq!(
        ask(&server, Some(&format!("bearer   {token} "))).status,
        200
    );
}

#[test]
fn claims_that_are_refused() {
    let server = server();
    for exp in [NOW_S - 60, NOW_S - 61, 0] {
        expect(
            &with_claims(&server, json!({"exp": exp})),
            401,
            "token-expired",
        );
    }
    let name = "x".repeat(129);
    for change in [
        json!({"exp": "absent"}),
        json!({"exp": "1900000000"}),
        json!({"exp": null}),
        json!({"exp": -1}),
        json!({"exp": "never"}),
        json!({"nbf": NOW_S + 61}),
        json!({"nbf": "soon"}),
        json!({"aud": "absent"}),
        json!({"aud": "Syncline"}),
        json!({"aud": "other"}),
        json!({"aud": []}),
        json!({"aud": {"syncline": true}}),
        json!({"aud": null}),
        json!({"sub": "absent"}),
        json!({"sub": ""}),
        json!({"sub": 7}),
        json!({"sub": "a\nb"}),
        json!({"sub": name}),
        json!({"tenant": ""}),
        json!({"tenant": null}),
        json!({"tenant": ["acme"]}),
        json!({"tenant": "a\u{0}b"}),
        json!({"tenant": name}),
        json!({"access": "admin"}),
        json!({"access": "Write"}),
    ] {
        let response = with_claims(&server, change.clone());
        let found = problem(&response);
        assert_eq!(found, (401, "token-invalid".to_owned()), "{change}");
    }
}

/// Tokens around a good one that must all be refused.
fn forged(good: &str) -> Vec<String> {
    let parts: Vec<&str> = good.split('.').collect();
    let (header, body, signature) = (parts[0], parts[1], parts[2]);
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let mut tokens = vec![
        sign(
            b"another secret of at least 32 bytes....",
            &hs256(),
            &claims(json!({})),
        ),
        sign(b"", &hs256(), &claims(json!({}))),
        format!("{header}.{body}."),
        format!("{header}.{body}"),
        format!("{header}..{signature}"),
        format!("{good}.{signature}"),
        format!("{good}="),
        format!("{header}.{body}.{}", "A".repeat(43)),
        format!(
            "{header}.{}.{signature}",
            encode(&claims(json!({"tenant": "other"})).to_string())
        ),
        format!(
            "{}.{body}.{signature}",
            STANDARD.encode(hs256().to_string() + " ")
        ),
        "a.b.c".to_owned(),
        "..".to_owned(),
        String::new(),
        "é".to_owned(),
        "\u{0}".to_owned(),
        good.to_uppercase(),
        format!("{good} {good}"),
    ];
    for alg in [
        "none", "None", "NONE", "HS384", "HS512", "RS256", "ES256", "EdDSA", "PS256", "", "hs256",
        "HS256 ", "ROT13",
    ] {
        let header = json!({"alg": alg, "typ": "JWT", "kid": "x", "jku": "https://evil.example/"});
        let signed = sign(SECRET, &header, &claims(json!({})));
        let unsigned = signed.rsplit_once('.').unwrap().0.to_owned();
        tokens.push(signed);
        tokens.push(format!("{unsigned}."));
    }
    for header in [
        json!({}),
        json!([]),
        json!("HS256"),
        json!({"alg": null}),
        json!({"alg": ["HS256"]}),
    ] {
        tokens.push(sign(SECRET, &header, &claims(json!({}))));
    }
    for claims in [json!([]), json!("x"), json!(null), json!(7)] {
        tokens.push(sign(SECRET, &hs256(), &claims));
    }
    // Valid, but of a size that nobody needs.
    tokens.push(sign(
        SECRET,
        &hs256(),
        &claims(json!({"pad": "x".repeat(9000)})),
    ));
    tokens
}

#[test]
fn headers_and_signatures_that_are_refused() {
    let server = server();
    let tokens = forged(&sign(SECRET, &hs256(), &claims(json!({}))));
    assert!(tokens.len() > 45);
    for token in tokens {
        let response = ask(&server, Some(&format!("Bearer {token}")));
        let found = problem(&response);
        assert_eq!(found, (401, "token-invalid".to_owned()), "{token}");
        assert!(
            token.len() < 9 || !text(&response).contains(&token),
            "the token was repeated"
        );
    }
}

#[test]
fn there_is_one_way_to_show_a_token() {
    let server = server();
    let good = sign(SECRET, &hs256(), &claims(json!({})));
    for line in [
        None,
        Some(""),
        Some("Bearer"),
        Some("Basic YTpi"),
        Some(good.as_str()),
    ] {
        expect(&ask(&server, line), 401, "token-missing");
    }
    let twice = Request::new("GET", "/v1/hello")
        .header("syncline-protocol", "2026-11-01")
        .header("authorization", format!("Bearer {good}"))
        .header("authorization", format!("Bearer {good}"));
    expect(&server.send(&twice), 401, "token-invalid");
    // Every endpoint asks.
    for (method, path) in [
        ("GET", "/v1/hello"),
        ("GET", "/v1/pull"),
        ("POST", "/v1/push"),
        ("GET", "/v1/mutations/k"),
    ] {
        let bare = Request::new(method, path).header("syncline-protocol", "2026-11-01");
        expect(&server.send(&bare), 401, "token-missing");
    }
}

#[test]
fn time_comes_from_outside_only() {
    let server = server();
    let line = format!("Bearer {}", server.token(&ann())); // for an hour
    for (after_s, status) in [(-100_000, 200), (0, 200), (3659, 200), (3660, 401)] {
        server.now_ms.set((NOW_S + after_s) * 1000);
        assert_eq!(
            ask(&server, Some(&line)).status,
            status,
            "after {after_s} s"
        );
    }
}

#[test]
fn weak_secrets_and_bad_names_are_refused_when_made() {
    assert!(matches!(
        Authenticator::hs256(b"short"),
        Err(AuthError::WeakSecret(5))
    ));
    let server = server();
    let identity = Caller::new("", "ann", PHONE).identity();
    let issued = issue_token(SECRET, &identity, server.now(), 60);
    assert!(matches!(issued, Err(AuthError::BadName(_))));
    let shown = format!("{:?}", Authenticator::hs256(SECRET).unwrap());
    assert!(!shown.contains("bytes"), "{shown}");
}
