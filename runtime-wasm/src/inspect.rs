//! Reads what a module is from its bytes: kind, world, imports, exports, and what rules it out.

use runtime::detect::{BinaryKind, Entrypoint};
use wasmparser::{
    ComponentExternalKind, ExternalKind, MemoryType, Parser, Payload, TypeRef, Validator,
    WasmFeatures,
};
use wasmtime::Engine;

use crate::info::{WasmInfo, World};

/// Why the bytes are no module that can be run here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// Neither module nor component.
    #[error("the file is no WebAssembly module")]
    NotWasm,
    /// Broken, or using a proposal that is off.
    #[error("the module is invalid")]
    Invalid(#[source] wasmparser::BinaryReaderError),
    /// The exception instructions from before the standard.
    #[error(
        "the module uses legacy exceptions, which are not supported; rebuild it with standard \
         exception handling"
    )]
    LegacyExceptions,
    /// Threads.
    #[error("the module uses shared memory, which is not supported")]
    SharedMemory,
    /// Threads.
    #[error("the module uses wasi-threads, which is not supported")]
    WasiThreads,
}

/// Reads a module or component without validating its code.
///
/// # Errors
/// When the bytes are no wasm, or cannot be parsed, or need shared memory or wasi-threads.
pub fn inspect(bytes: &[u8]) -> Result<WasmInfo, InspectError> {
    let Entrypoint::Wasm(kind) = Entrypoint::from_bytes(bytes) else {
        return Err(InspectError::NotWasm);
    };
    let mut found = Found::default();
    // Only the outermost level is the module's own interface; nested ones are its private parts.
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(InspectError::Invalid)? {
            Payload::ModuleSection { .. } => {
                found.has_code = true;
                depth += 1;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            payload if depth == 0 => found.read(payload)?,
            Payload::MemorySection(reader) => {
                for memory in reader {
                    refuse_shared(&memory.map_err(InspectError::Invalid)?)?;
                }
            }
            _ => {}
        }
    }
    Ok(found.into_info(kind))
}

/// Validates a module with the features that the engine has: milliseconds, where finding out by
/// compiling may take minutes.
///
/// # Errors
/// When it is invalid, with the reason where it is a known one.
pub fn validate(engine: &Engine, bytes: &[u8]) -> Result<(), InspectError> {
    let features = engine.get_wasm_features();
    let Err(error) = Validator::new_with_features(features).validate_all(bytes) else {
        return Ok(());
    };
    let legacy = features | WasmFeatures::LEGACY_EXCEPTIONS;
    let moved = match Validator::new_with_features(legacy).validate_all(bytes) {
        Ok(_) => true,
        Err(other) => other.offset() > error.offset(),
    };
    if moved {
        return Err(InspectError::LegacyExceptions);
    }
    Err(InspectError::Invalid(error))
}

/// Proposals beyond WebAssembly 1.0 that the module uses: those without which it is invalid. Empty
/// for a module that is invalid anyway.
#[must_use]
pub fn proposals(engine: &Engine, bytes: &[u8]) -> Vec<&'static str> {
    const PROPOSALS: [(&str, WasmFeatures); 17] = [
        ("mutable-global", WasmFeatures::MUTABLE_GLOBAL),
        (
            "saturating-float-to-int",
            WasmFeatures::SATURATING_FLOAT_TO_INT,
        ),
        ("sign-extension", WasmFeatures::SIGN_EXTENSION),
        ("multi-value", WasmFeatures::MULTI_VALUE),
        ("bulk-memory", WasmFeatures::BULK_MEMORY),
        ("reference-types", WasmFeatures::REFERENCE_TYPES),
        ("simd", WasmFeatures::SIMD),
        ("relaxed-simd", WasmFeatures::RELAXED_SIMD),
        ("tail-call", WasmFeatures::TAIL_CALL),
        ("extended-const", WasmFeatures::EXTENDED_CONST),
        ("multi-memory", WasmFeatures::MULTI_MEMORY),
        ("memory64", WasmFeatures::MEMORY64),
        ("function-references", WasmFeatures::FUNCTION_REFERENCES),
        ("gc", WasmFeatures::GC),
        ("exceptions", WasmFeatures::EXCEPTIONS),
        ("component-model", WasmFeatures::COMPONENT_MODEL),
        ("component-model-async", WasmFeatures::CM_ASYNC),
    ];
    let features = engine.get_wasm_features();
    let valid = |features| {
        Validator::new_with_features(features)
            .validate_all(bytes)
            .is_ok()
    };
    if !valid(features) {
        return Vec::new();
    }
    PROPOSALS
        .into_iter()
        .filter(|(_, feature)| !valid(features.difference(*feature)))
        .map(|(name, _)| name)
        .collect()
}

/// What the outermost level holds.
#[derive(Default)]
struct Found {
    imports: Vec<String>,
    exports: Vec<String>,
    has_code: bool,
}

impl Found {
    fn read(&mut self, payload: Payload<'_>) -> Result<(), InspectError> {
        match payload {
            Payload::ImportSection(reader) => {
                for import in reader.into_imports() {
                    let import = import.map_err(InspectError::Invalid)?;
                    if import.module == "wasi" && import.name == "thread-spawn" {
                        return Err(InspectError::WasiThreads);
                    }
                    if let TypeRef::Memory(memory) = import.ty {
                        refuse_shared(&memory)?;
                    }
                    self.imports
                        .push(format!("{}.{}", import.module, import.name));
                }
            }
            Payload::MemorySection(reader) => {
                for memory in reader {
                    refuse_shared(&memory.map_err(InspectError::Invalid)?)?;
                }
            }
            Payload::ExportSection(reader) => {
                for export in reader {
                    let export = export.map_err(InspectError::Invalid)?;
                    if export.kind == ExternalKind::Func {
                        self.exports.push(export.name.to_owned());
                    }
                }
            }
            Payload::CodeSectionStart { .. } => self.has_code = true,
            Payload::ComponentImportSection(reader) => {
                for import in reader {
                    let import = import.map_err(InspectError::Invalid)?;
                    self.imports.push(import.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(reader) => {
                for export in reader {
                    let export = export.map_err(InspectError::Invalid)?;
                    if export.kind != ComponentExternalKind::Type {
                        self.exports.push(export.name.name.to_owned());
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn into_info(self, kind: BinaryKind) -> WasmInfo {
        let world = match kind {
            BinaryKind::CoreModule => self.module_world(),
            BinaryKind::Component => self.component_world(),
        };
        WasmInfo {
            kind,
            world,
            imports: self.imports,
            exports: self.exports,
        }
    }

    fn exports(&self, name: &str) -> bool {
        self.exports.iter().any(|export| export == name)
    }

    fn module_world(&self) -> World {
        if self.exports("_start") {
            World::CommandP1
        } else if self.exports("_initialize") {
            World::Reactor
        } else {
            World::Library
        }
    }

    fn component_world(&self) -> World {
        let version = |prefix: &str| {
            let found = self
                .exports
                .iter()
                .find_map(|name| name.strip_prefix(prefix));
            found.map(str::to_owned)
        };
        // HTTP first: a program that serves may export a `run` as well, which its toolchain adds.
        if let Some(version) = version("wasi:http/incoming-handler@") {
            World::HttpProxy(version)
        } else if let Some(version) = version("wasi:http/handler@") {
            World::HttpService(version)
        } else if let Some(version) = version("wasi:cli/run@") {
            World::Command(version)
        } else if self.has_code {
            World::Library
        } else {
            World::WitPackage
        }
    }
}

fn refuse_shared(memory: &MemoryType) -> Result<(), InspectError> {
    if memory.shared {
        return Err(InspectError::SharedMemory);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wat(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    fn world(text: &str) -> World {
        inspect(&wat(text)).unwrap().world
    }

    #[test]
    fn inspect_of_modules_tells_their_worlds() {
        assert_eq!(
            world("(module (func (export \"_start\")))"),
            World::CommandP1
        );
        assert_eq!(
            world("(module (func (export \"_initialize\")))"),
            World::Reactor
        );
        assert_eq!(world("(module (func (export \"add\")))"), World::Library);
        assert_eq!(world("(component)"), World::WitPackage);
        assert_eq!(world("(component (core module))"), World::Library);
    }

    #[test]
    fn inspect_of_components_tells_world_and_version() {
        let exporting = |name: &str| {
            world(&format!(
                r#"(component (core module)
                   (instance $i) (export "{name}" (instance $i)))"#
            ))
        };
        assert_eq!(
            exporting("wasi:cli/run@0.2.3"),
            World::Command("0.2.3".into())
        );
        assert_eq!(
            exporting("wasi:cli/run@0.3.0"),
            World::Command("0.3.0".into())
        );
        assert_eq!(
            exporting("wasi:http/incoming-handler@0.2.0"),
            World::HttpProxy("0.2.0".into())
        );
        let both = world(
            r#"(component (core module) (instance $i)
               (export "wasi:cli/run@0.3.0" (instance $i))
               (export "wasi:http/handler@0.3.0" (instance $i)))"#,
        );
        assert_eq!(both, World::HttpService("0.3.0".into()));
        assert_eq!(
            exporting("wasi:http/handler@0.3.0"),
            World::HttpService("0.3.0".into())
        );
    }

    #[test]
    fn inspect_lists_imports_and_exports_of_the_outer_level_only() {
        let info = inspect(&wat(r#"(module
                 (import "env" "f" (func))
                 (memory (export "memory") 1)
                 (func (export "_start")))"#))
        .unwrap();
        assert_eq!(info.imports, ["env.f"]);
        assert_eq!(info.exports, ["_start"]);
        assert_eq!(info.kind, BinaryKind::CoreModule);
    }

    #[test]
    fn inspect_of_threads_is_refused_with_the_reason() {
        let shared = inspect(&wat("(module (memory 1 1 shared))")).unwrap_err();
        assert!(matches!(shared, InspectError::SharedMemory));
        let nested = inspect(&wat("(component (core module (memory 1 1 shared)))")).unwrap_err();
        assert!(matches!(nested, InspectError::SharedMemory));
        let spawn = r#"(module (import "wasi" "thread-spawn" (func (param i32) (result i32))))"#;
        assert!(matches!(
            inspect(&wat(spawn)),
            Err(InspectError::WasiThreads)
        ));
    }

    #[test]
    fn inspect_of_other_files_is_refused() {
        for bytes in [
            &b""[..],
            b"\x7fELF\x02\x01\x01\0",
            b"(module)",
            b"\0asm\x02\0\0\0",
        ] {
            assert!(matches!(inspect(bytes), Err(InspectError::NotWasm)));
        }
        let cut = wat("(module (func (export \"_start\")))");
        let error = inspect(&cut[..cut.len() - 3]).unwrap_err();
        assert!(matches!(error, InspectError::Invalid(_)));
    }

    fn check(bytes: &[u8]) -> Result<(), InspectError> {
        let engine = crate::engine::engine(crate::engine::Profile::COMMAND).unwrap();
        validate(&engine, bytes)
    }

    #[test]
    fn validate_of_legacy_exceptions_says_so() {
        let legacy = wat("(module (func (export \"_start\") try catch_all end))");
        assert!(matches!(
            check(&legacy),
            Err(InspectError::LegacyExceptions)
        ));
        let standard = wat("(module (func (export \"_start\") (block (try_table (catch_all 0)))))");
        check(&standard).unwrap();
    }

    #[test]
    fn proposals_of_a_module_are_those_it_cannot_do_without() {
        let engine = crate::engine::engine(crate::engine::Profile::COMMAND).unwrap();
        let used = |text: &str| proposals(&engine, &wat(text));
        assert_eq!(used("(module)"), Vec::<&str>::new());
        let simd = "(module (func (drop (i8x16.popcnt (v128.const i64x2 1 2)))))";
        assert_eq!(used(simd), ["simd"]);
        assert_eq!(
            used("(module (func $f) (func (return_call $f)))"),
            ["tail-call"]
        );
        assert_eq!(
            used("(module (memory i64 1) (memory 1))"),
            ["multi-memory", "memory64"]
        );
    }

    #[test]
    fn validate_of_a_type_error_is_invalid() {
        let mut bytes = wat("(module (func (export \"_start\") (drop (i32.const 1))))");
        let drop = bytes.iter().rposition(|byte| *byte == 0x1a).unwrap();
        bytes[drop] = 0x45;
        assert!(matches!(check(&bytes), Err(InspectError::Invalid(_))));
    }
}
