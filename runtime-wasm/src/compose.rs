//! Components put together: what one imports is taken from the exports of others. The result is a
//! component like any other, compiled and cached by its own digest.

use thiserror::Error;
use wac_graph::types::{Package, SubtypeChecker, are_semver_compatible};
use wac_graph::{CompositionGraph, EncodeOptions, NodeId, PackageId};

use crate::compile::MAX_MODULE_BYTES;

/// A component whose exports are imports of another one.
#[derive(Debug, Clone, Copy)]
pub struct Plug<'a> {
    /// Which imports are meant: `ns:package/interface@version`, or a beginning of it that ends before
    /// `/` or `@`.
    pub import: &'a str,
    /// What the component is called in errors.
    pub name: &'a str,
    /// The component.
    pub bytes: &'a [u8],
}

/// Why components do not fit.
#[derive(Debug, Error)]
pub enum ComposeError {
    /// Not a component.
    #[error(
        "`{name}` is no component that others can be plugged into or that can be plugged: {reason}"
    )]
    NoComponent {
        /// What it is called.
        name: String,
        /// What the decoder says.
        reason: String,
    },
    /// Nothing is imported under the name.
    #[error("the component imports nothing called `{import}`; it imports {}", list(.imports))]
    NoImport {
        /// The name.
        import: String,
        /// What it imports.
        imports: Vec<String>,
    },
    /// The import is there, and the component does not export it.
    #[error("`{name}` does not export `{import}` as it is imported; it exports {}", list(.exports))]
    NoExport {
        /// What the component is called.
        name: String,
        /// The import.
        import: String,
        /// What it exports.
        exports: Vec<String>,
    },
    /// The graph cannot be made, or not be written down.
    #[error("the components cannot be put together: {0}")]
    Graph(String),
    /// Over the largest size of a module.
    #[error("the components are together larger than {} MiB", MAX_MODULE_BYTES >> 20)]
    TooLarge,
}

fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    }
}

/// Takes the named imports of a component from others. Imports that are not named stay imports, and so
/// do those of the others.
///
/// # Errors
/// What does not fit.
pub fn plug(name: &str, socket: &[u8], plugs: &[Plug<'_>]) -> Result<Vec<u8>, ComposeError> {
    let sizes = plugs.iter().map(|plug| plug.bytes.len());
    let size: usize = sizes.sum::<usize>().saturating_add(socket.len());
    if u64::try_from(size).is_ok_and(|size| size > MAX_MODULE_BYTES) {
        return Err(ComposeError::TooLarge);
    }
    let mut graph = CompositionGraph::new();
    let socket = register(&mut graph, "ketch:socket", name, socket)?;
    let instance = graph.instantiate(socket);
    for (number, plug) in plugs.iter().enumerate() {
        let package = register(
            &mut graph,
            &format!("ketch:plug{number}"),
            plug.name,
            plug.bytes,
        )?;
        fill(&mut graph, socket, instance, package, plug)?;
    }
    for export in names(&graph, socket, Side::Exports) {
        let node = graph
            .alias_instance_export(instance, &export)
            .map_err(failed)?;
        graph.export(node, &export).map_err(failed)?;
    }
    graph.encode(EncodeOptions::default()).map_err(failed)
}

fn failed(error: impl std::error::Error) -> ComposeError {
    ComposeError::Graph(error.to_string())
}

fn register(
    graph: &mut CompositionGraph,
    package: &str,
    name: &str,
    bytes: &[u8],
) -> Result<PackageId, ComposeError> {
    let no_component = |reason: String| ComposeError::NoComponent {
        name: name.to_owned(),
        reason,
    };
    let package = Package::from_bytes(package, None, bytes.to_vec(), graph.types_mut())
        .map_err(|error| no_component(format!("{error:#}")))?;
    graph
        .register_package(package)
        .map_err(|error| no_component(error.to_string()))
}

#[derive(Clone, Copy)]
enum Side {
    Imports,
    Exports,
}

fn names(graph: &CompositionGraph, package: PackageId, side: Side) -> Vec<String> {
    let world = &graph.types()[graph[package].ty()];
    match side {
        Side::Imports => world.imports.keys().cloned().collect(),
        Side::Exports => world.exports.keys().cloned().collect(),
    }
}

/// Gives the named imports of the socket what the plug exports.
fn fill(
    graph: &mut CompositionGraph,
    socket: PackageId,
    instance: NodeId,
    package: PackageId,
    plug: &Plug<'_>,
) -> Result<(), ComposeError> {
    let imports = names(graph, socket, Side::Imports);
    let named: Vec<&String> = imports
        .iter()
        .filter(|i| is_named(i, plug.import))
        .collect();
    if named.is_empty() {
        return Err(ComposeError::NoImport {
            import: plug.import.to_owned(),
            imports,
        });
    }
    let plugged = graph.instantiate(package);
    for import in named {
        let export = matching(graph, socket, package, import).ok_or_else(|| {
            let exports = names(graph, package, Side::Exports);
            ComposeError::NoExport {
                name: plug.name.to_owned(),
                import: import.clone(),
                exports,
            }
        })?;
        let node = graph
            .alias_instance_export(plugged, &export)
            .map_err(failed)?;
        graph
            .set_instantiation_argument(instance, import, node)
            .map_err(failed)?;
    }
    Ok(())
}

/// The export of the plug that is what the socket imports: of the same name, or of a compatible version.
fn matching(
    graph: &CompositionGraph,
    socket: PackageId,
    package: PackageId,
    import: &str,
) -> Option<String> {
    let types = graph.types();
    let wanted = types[graph[socket].ty()].imports.get(import)?;
    let mut cache = std::collections::HashSet::new();
    let mut checker = SubtypeChecker::new(&mut cache);
    let mut exports: Vec<_> = types[graph[package].ty()].exports.iter().collect();
    exports.sort_by_key(|(name, _)| *name != import);
    let found = exports.into_iter().find(|(name, ty)| {
        (*name == import || are_semver_compatible(name, import))
            && checker.is_subtype(**ty, types, *wanted, types).is_ok()
    });
    found.map(|(name, _)| name.clone())
}

/// Whether an import is meant by a name: it is the name, or goes on after it with `/` or `@`.
fn is_named(import: &str, name: &str) -> bool {
    let rest = import.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '@']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKET: &str = r#"(component
        (import "demo:plug/api@1.0.0" (instance $api (export "number" (func (result u32)))))
        (alias export $api "number" (func $number))
        (export "answer" (func $number)))"#;

    fn plug_of(number: u32, kind: &str, export: &str) -> Vec<u8> {
        let text = format!(
            r#"(component
                (core module $m (func (export "number") (result i32) i32.const {number}))
                (core instance $i (instantiate $m))
                (func $number (result {kind}) (canon lift (core func $i "number")))
                (instance $api (export "number" (func $number)))
                (export "{export}" (instance $api)))"#
        );
        wat::parse_str(text).unwrap()
    }

    fn compose(import: &str, bytes: &[u8]) -> Result<Vec<u8>, ComposeError> {
        let socket = wat::parse_str(SOCKET).unwrap();
        let plugs = [Plug {
            import,
            name: "plug",
            bytes,
        }];
        plug("socket", &socket, &plugs)
    }

    #[test]
    fn import_is_taken_from_an_export_of_a_compatible_version() {
        for export in ["demo:plug/api@1.0.0", "demo:plug/api@1.0.7"] {
            let bytes = plug_of(42, "u32", export);
            for import in ["demo:plug", "demo:plug/api", "demo:plug/api@1.0.0"] {
                let whole = compose(import, &bytes).unwrap();
                let world = wasmparser::Parser::is_component(&whole);
                assert!(world, "{import}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let other = plug_of(42, "u32", "demo:other/api");
        let kind = plug_of(42, "s32", "demo:plug/api@1.0.0");
        let module = wat::parse_str("(module)").unwrap();
        for (import, bytes, says) in [
            (
                "demo:plu",
                &other,
                "imports nothing called `demo:plu`; it imports demo:plug/api@1.0.0",
            ),
            ("demo:plug", &other, "it exports demo:other/api"),
            (
                "demo:plug",
                &kind,
                "does not export `demo:plug/api@1.0.0` as it is imported",
            ),
            ("demo:plug", &module, "`plug` is no component"),
        ] {
            let error = compose(import, bytes).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn bytes_that_are_no_component_are_refused_without_a_panic() {
        let whole = plug_of(42, "u32", "demo:plug/api@1.0.0");
        for length in 0..whole.len() {
            let mut bytes = whole[..length].to_vec();
            drop(compose("demo:plug", &bytes));
            bytes = whole.clone();
            bytes[length] ^= 0x41;
            drop(compose("demo:plug", &bytes));
        }
    }
}
