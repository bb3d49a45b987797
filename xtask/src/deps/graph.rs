//! Rules about the dependency graph that `Cargo.lock` describes, for all platforms.
//!
//! Pure functions from the output of `cargo metadata` to findings.

use crate::json::Json;

/// Packages that must not be there: TLS is rustls, and nothing of the system is linked for it.
const BANNED: &[&str] = &["native-tls", "openssl", "openssl-sys"];

/// The packages that may link a native library, since each builds it from the source it brings;
/// with the feature that makes it so, or the one that would make it look on the system.
const NATIVE: &[(&str, Source)] = &[
    ("libsqlite3-sys", Source::With("bundled")),
    ("ring", Source::Always),
    // Links nothing: the name only keeps two versions out of one graph.
    ("wasm-bindgen-shared", Source::Always),
    ("zstd-sys", Source::Without("pkg-config")),
];

enum Source {
    Always,
    With(&'static str),
    Without(&'static str),
}

/// What is wrong in this graph. `Err` if it is not what `cargo metadata` prints.
pub(super) fn findings(metadata: &str) -> Result<Vec<String>, String> {
    let metadata = Json::read(metadata).ok_or("cargo metadata printed no JSON")?;
    let stated = stated(&metadata)?;
    let mut findings = Vec::new();
    for package in metadata.list("packages") {
        let name = package.text("name").unwrap_or_default();
        let named = format!("{name} {}", package.text("version").unwrap_or_default());
        if BANNED.contains(&name) {
            findings.push(format!("{named}: TLS is rustls only"));
        }
        if let Some(needed) = package.text("rust_version")
            && version(needed) > version(stated)
        {
            findings.push(format!("{named} needs Rust {needed}, stated is {stated}"));
        }
        if package.text("links").is_some() {
            let features = features(&metadata, package);
            findings.extend(native(name, &features).map(|why| format!("{named}: {why}")));
        }
    }
    Ok(findings)
}

/// The Rust version that the packages of the workspace state: the lowest, should they differ.
pub(super) fn stated_rust(metadata: &str) -> Result<String, String> {
    let metadata = Json::read(metadata).ok_or("cargo metadata printed no JSON")?;
    stated(&metadata).map(str::to_owned)
}

fn stated(metadata: &Json) -> Result<&str, String> {
    let packages = metadata.list("packages").iter();
    packages
        .filter(|package| package.text("source").is_none())
        .filter_map(|package| package.text("rust_version"))
        .min_by_key(|text| version(text))
        .ok_or_else(|| "no package of the workspace states a rust-version".to_owned())
}

/// The features that `package` is built with.
fn features<'a>(metadata: &'a Json, package: &Json) -> Vec<&'a Json> {
    let id = package.text("id");
    let nodes = metadata.get("resolve").map_or(&[][..], |r| r.list("nodes"));
    let node = nodes.iter().find(|node| node.text("id") == id);
    node.map_or(Vec::new(), |node| node.list("features").iter().collect())
}

/// Why a package that links a native library may take the system's.
fn native(name: &str, features: &[&Json]) -> Option<String> {
    let has = |wanted: &str| features.contains(&&Json::Text(wanted.to_owned()));
    match NATIVE.iter().find(|(known, _)| *known == name) {
        None => Some("links a native library; is it built from source?".to_owned()),
        Some((_, Source::With(wanted))) if !has(wanted) => {
            Some(format!("the feature `{wanted}` is off"))
        }
        Some((_, Source::Without(other))) if has(other) => {
            Some(format!("the feature `{other}` is on"))
        }
        Some(_) => None,
    }
}

/// `1.90` and `1.90.0` are the same.
fn version(text: &str) -> [u32; 3] {
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph of a workspace that states 1.90, and `name` with these members and features.
    fn graph(name: &str, members: &str, features: &str) -> String {
        format!(
            r#"{{"packages": [
                {{"name": "syncline", "version": "0.1.0", "id": "a", "source": null,
                  "rust_version": "1.90", "links": null}},
                {{"name": "{name}", "version": "2.0.0", "id": "b", "source": "registry"{members}}}],
              "resolve": {{"nodes": [{{"id": "a", "features": []}},
                {{"id": "b", "features": [{features}]}}]}}}}"#
        )
    }

    fn found(name: &str, members: &str, features: &str) -> Vec<String> {
        findings(&graph(name, members, features)).unwrap()
    }

    #[test]
    fn no_dependency_needs_a_newer_rust() {
        for fits in ["1.90", "1.90.0", "1.9", "1.89.2"] {
            let member = format!(r#", "rust_version": "{fits}""#);
            assert!(found("serde", &member, "").is_empty(), "{fits}");
        }
        assert!(found("serde", r#", "rust_version": null"#, "").is_empty());
        for newer in ["1.91", "1.90.1", "1.100", "2.0"] {
            let member = format!(r#", "rust_version": "{newer}""#);
            let wanted = format!("serde 2.0.0 needs Rust {newer}, stated is 1.90");
            assert_eq!(found("serde", &member, ""), [wanted]);
        }
    }

    #[test]
    fn tls_of_the_system_is_not_used() {
        for name in ["native-tls", "openssl-sys", "openssl"] {
            assert_eq!(
                found(name, "", ""),
                [format!("{name} 2.0.0: TLS is rustls only")]
            );
        }
        assert!(found("rustls", "", "").is_empty());
    }

    #[test]
    fn sqlite_is_bundled() {
        let links = r#", "links": "sqlite3""#;
        assert!(found("libsqlite3-sys", links, r#""default", "bundled""#).is_empty());
        let wanted = ["libsqlite3-sys 2.0.0: the feature `bundled` is off"];
        assert_eq!(found("libsqlite3-sys", links, r#""default""#), wanted);
    }

    #[test]
    fn native_libraries_are_built_from_source() {
        let links = r#", "links": "any""#;
        assert!(found("ring", links, "").is_empty());
        assert!(found("zstd-sys", links, r#""std""#).is_empty());
        let wanted = ["zstd-sys 2.0.0: the feature `pkg-config` is on"];
        assert_eq!(found("zstd-sys", links, r#""pkg-config""#), wanted);
        let wanted = ["curl-sys 2.0.0: links a native library; is it built from source?"];
        assert_eq!(found("curl-sys", links, ""), wanted);
    }

    #[test]
    fn a_graph_that_cannot_be_judged_is_an_error() {
        assert!(findings("error: no network").is_err());
        let silent = graph("serde", "", "").replace("1.90", "");
        assert!(findings(&silent.replace(r#""rust_version": "","#, "")).is_err());
    }
}
