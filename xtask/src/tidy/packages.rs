//! Rules about the packages of the workspace: each says what it is, and the layers hold.
//!
//! Manifests are read line by line, in the form that this repository writes them. Development
//! dependencies are free: the tests of a lower layer may use the harness.

use super::Finding;
use super::tree::{Tree, is_manifest};
use std::collections::{BTreeMap, BTreeSet};

/// What a package may depend on.
enum Layer {
    /// Of the workspace, directly or not, these only.
    Only(&'static [&'static str]),
    /// Not on these, directly or not.
    Never(&'static [&'static str]),
}

const LAYERS: &[(&str, Layer)] = &[
    ("syncline-protocol", Layer::Only(&[])),
    ("syncline-core", Layer::Only(&["syncline-protocol"])),
    (
        "syncline-store",
        Layer::Never(&[
            "syncline",
            "syncline-server",
            "syncline-server-postgres",
            "syncline-server-sqlite",
        ]),
    ),
    (
        "syncline-server",
        Layer::Never(&["syncline", "syncline-core", "syncline-store"]),
    ),
    // The top of the product: what breaks files on purpose is for tests alone.
    ("syncline-cli", Layer::Never(&["syncline-fault-vfs"])),
];

#[derive(Debug, Default)]
struct Package<'a> {
    path: &'a str,
    name: &'a str,
    description: bool,
    dependencies: Vec<Dependency<'a>>,
}

#[derive(Debug)]
struct Dependency<'a> {
    name: &'a str,
    line: usize,
}

/// Every package has a description.
pub(super) fn packages_have_a_description(tree: &Tree) -> Vec<Finding> {
    packages(tree)
        .iter()
        .filter(|package| !package.description)
        .map(|package| {
            let message = format!("package `{}` has no description", package.name);
            Finding::new(package.path, 1, message)
        })
        .collect()
}

/// No package reaches a layer that it must not know.
pub(super) fn layers_hold(tree: &Tree) -> Vec<Finding> {
    let packages = packages(tree);
    let by_name: BTreeMap<&str, &Package<'_>> = packages.iter().map(|p| (p.name, p)).collect();
    let mut findings = Vec::new();
    for (name, layer) in LAYERS {
        let Some(package) = by_name.get(name) else {
            continue;
        };
        for dependency in &package.dependencies {
            let reached = reach(dependency.name, &by_name);
            for wrong in reached.into_iter().filter(|name| !allowed(layer, name)) {
                let message = format!("{name} must not depend on {wrong}");
                let message = match wrong == dependency.name {
                    true => message,
                    false => format!("{message} (through {})", dependency.name),
                };
                findings.push(Finding::new(package.path, dependency.line, message));
            }
        }
    }
    findings
}

fn allowed(layer: &Layer, name: &str) -> bool {
    match layer {
        Layer::Only(these) => these.contains(&name),
        Layer::Never(these) => !these.contains(&name),
    }
}

/// The packages of the workspace that `start` leads to, itself included.
fn reach<'a>(start: &'a str, by_name: &BTreeMap<&str, &Package<'a>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start];
    while let Some(name) = open.pop() {
        if let Some(package) = by_name.get(name)
            && reached.insert(name)
        {
            open.extend(package.dependencies.iter().map(|next| next.name));
        }
    }
    reached
}

fn packages(tree: &Tree) -> Vec<Package<'_>> {
    tree.texts()
        .filter(|(path, _)| is_manifest(path))
        .map(|(path, text)| package(path, text))
        .filter(|package| !package.name.is_empty())
        .collect()
}

fn package<'a>(path: &'a str, text: &'a str) -> Package<'a> {
    let mut package = Package {
        path,
        ..Package::default()
    };
    let mut section = "";
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        if let Some(header) = line.strip_prefix('[') {
            section = header.split(']').next().unwrap_or(header);
            // `[dependencies.name]` is a section of its own.
            if let Some((table, name)) = section.rsplit_once('.')
                && is_dependencies(table)
            {
                package.depend(name, line, line_number);
            }
            continue;
        }
        let key = line.split(['.', '=', ' ']).next().unwrap_or(line);
        match (section, key) {
            (_, "") => {}
            ("package", "name") => package.name = quoted(line).unwrap_or_default(),
            ("package", "description") => package.description = true,
            (section, key) if is_dependencies(section) && !key.starts_with('#') => {
                package.depend(key, line, line_number);
            }
            _ => {}
        }
    }
    package
}

impl<'a> Package<'a> {
    /// Notes a dependency, by its package's name if it is renamed.
    fn depend(&mut self, key: &'a str, declaration: &'a str, line: usize) {
        let renamed = declaration.split_once("package = ");
        let name = renamed.and_then(|(_, rest)| quoted(rest)).unwrap_or(key);
        self.dependencies.push(Dependency { name, line });
    }
}

/// Whether this table holds dependencies of the package itself, of whatever target.
fn is_dependencies(section: &str) -> bool {
    let table = section.rsplit('.').next().unwrap_or(section);
    matches!(table, "dependencies" | "build-dependencies") && !section.starts_with("workspace")
}

/// The first string in double quotes.
fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace of packages with these dependency tables.
    fn workspace(packages: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<(String, String)> = packages
            .iter()
            .map(|(name, tables)| {
                let manifest = format!("[package]\nname = \"{name}\"\n{tables}");
                (format!("crates/{name}/Cargo.toml"), manifest)
            })
            .collect();
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        let found = layers_hold(&Tree::of(&files));
        found.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_description_may_be_inherited_but_not_missing() {
        let found = |extra: &str| {
            let manifest = format!("[package]\nname = \"a\"\n{extra}\n[lib]\n");
            packages_have_a_description(&Tree::of(&[("crates/a/Cargo.toml", &manifest)])).len()
        };
        assert_eq!(found("description = \"what it is\""), 0);
        assert_eq!(found("description.workspace = true"), 0);
        assert_eq!(found("version = \"1\""), 1);
        let virtual_manifest = Tree::of(&[("Cargo.toml", "[workspace]\n")]);
        assert_eq!(packages_have_a_description(&virtual_manifest), []);
    }

    #[test]
    fn the_designed_layers_pass() {
        let found = workspace(&[
            (
                "syncline-protocol",
                "[dependencies]\nserde.workspace = true\n",
            ),
            (
                "syncline-core",
                "[dependencies]\nsyncline-protocol.workspace = true\n",
            ),
            (
                "syncline-store",
                "[dependencies]\nsyncline-core = { workspace = true }\n",
            ),
            (
                "syncline-server",
                "[dependencies]\nsyncline-protocol.workspace = true\n",
            ),
            (
                "syncline",
                "[dependencies]\nsyncline-store.workspace = true\n",
            ),
        ]);
        assert!(found.is_empty());
    }

    #[test]
    fn a_wrong_dependency_is_found_at_its_line() {
        let found = workspace(&[
            (
                "syncline-core",
                "\n[dependencies]\nserde = \"1\"\nsyncline-store = \"0\"\n",
            ),
            ("syncline-store", ""),
        ]);
        assert_eq!(
            found,
            ["crates/syncline-core/Cargo.toml:6: syncline-core must not depend on syncline-store"]
        );
    }

    #[test]
    fn a_wrong_dependency_is_found_in_every_form_and_through_others() {
        for table in [
            "[dependencies.syncline]\nversion = \"0\"\n",
            "[target.'cfg(unix)'.dependencies]\nsyncline = \"0\"\n",
            "[build-dependencies]\nsyncline = \"0\"\n",
            "[dependencies]\nengine = { package = \"syncline\", version = \"0\" }\n",
            "[dependencies]\nmiddle = \"0\"\n",
        ] {
            let found = workspace(&[
                ("syncline-store", table),
                ("middle", "[dependencies]\nsyncline = \"0\"\n"),
                ("syncline", ""),
            ]);
            assert_eq!(found.len(), 1, "{table}");
        }
    }

    #[test]
    fn development_dependencies_are_free() {
        let found = workspace(&[
            (
                "syncline-core",
                "[dev-dependencies]\nsyncline-testkit.workspace = true\n",
            ),
            ("syncline-testkit", ""),
        ]);
        assert!(found.is_empty());
    }
}
