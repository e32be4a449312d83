//! Every layout in the field, one row each.

use super::*;

const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MODULE: Entrypoint = Entrypoint::Wasm(BinaryKind::CoreModule);
const COMPONENT: Entrypoint = Entrypoint::Wasm(BinaryKind::Component);

fn facts(config: &str, layers: &[&str], platform: &str) -> ManifestFacts {
    let (os, architecture) = platform.split_once('/').unwrap_or_default();
    ManifestFacts {
        config_media_type: config.to_owned(),
        layer_media_types: layers.iter().map(|&layer| layer.to_owned()).collect(),
        os: os.to_owned(),
        architecture: architecture.to_owned(),
        ..ManifestFacts::default()
    }
}

fn annotated(mut facts: ManifestFacts, key: &str, value: &str) -> ManifestFacts {
    facts.annotations.insert(key.to_owned(), value.to_owned());
    facts
}

fn explain(facts: &ManifestFacts, over: RuntimeOverride, entrypoint: Entrypoint) -> String {
    match choose(facts, over, || entrypoint) {
        Err(error) => format!("error: {error}"),
        Ok(choice) => {
            let source = match choice.source {
                None => String::new(),
                Some(WasmSource::File) => " file".to_owned(),
                Some(WasmSource::Layer(index)) => format!(" layer {index}"),
            };
            format!("{}{source}: {}", choice.runtime, choice.reason)
        }
    }
}

#[test]
fn choose_from_every_layout_names_the_fact() {
    use media_type::{
        COMPONENT_LAYER, DOCKER_CONFIG, EMPTY_CONFIG, IMAGE_CONFIG, MODULE_CONFIG_V1,
        MODULE_CONTENT_LAYER, SPIN_APPLICATION, WASM, WASM_CONFIG_V0, WASM_CONFIG_V1,
        WASM_CONTENT_LAYER,
    };
    let config_v0 = "wasm layer 0: config media type application/vnd.wasm.config.v0+json";
    let spin = "error: the image is a Spin application, not a container";
    let rows: &[(ManifestFacts, Entrypoint, &str)] = &[
        // A: CNCF artifact, module and component.
        (
            facts(WASM_CONFIG_V0, &[WASM], "wasip1/wasm"),
            Entrypoint::Missing,
            config_v0,
        ),
        (
            facts(WASM_CONFIG_V0, &[WASM], "wasip2/wasm"),
            Entrypoint::Missing,
            config_v0,
        ),
        (
            facts(WASM_CONFIG_V0, &[WASM, WASM], "wasip2/wasm"),
            Entrypoint::Missing,
            "error: the wasm artifact has 2 wasm layers, and only one is allowed",
        ),
        (
            facts(WASM_CONFIG_V0, &[TAR], "wasip2/wasm"),
            Entrypoint::Missing,
            "error: the wasm artifact has no wasm layer",
        ),
        // B: an ordinary image with a file, in all its platforms.
        (
            facts(IMAGE_CONFIG, &[TAR], "wasi/wasm"),
            MODULE,
            "wasm file: platform wasi/wasm",
        ),
        (
            facts(DOCKER_CONFIG, &[TAR], "wasi/wasm32"),
            MODULE,
            "wasm file: platform wasi/wasm32",
        ),
        (
            facts(IMAGE_CONFIG, &[TAR], "wasi/wasm64"),
            MODULE,
            "wasm file: platform wasi/wasm64",
        ),
        (
            facts(IMAGE_CONFIG, &[TAR], "wasip1/wasm"),
            MODULE,
            "wasm file: platform wasip1/wasm",
        ),
        (
            facts(IMAGE_CONFIG, &[TAR], "wasi/wasm"),
            Entrypoint::Elf,
            "error: `entrypoint` is an ELF file where wasm was expected; compiled code is never \
             taken from an image",
        ),
        (
            facts(IMAGE_CONFIG, &[TAR], "linux/amd64"),
            MODULE,
            "wasm file: entrypoint starts with \\0asm (core module)",
        ),
        (
            facts(IMAGE_CONFIG, &[TAR], "linux/amd64"),
            COMPONENT,
            "wasm file: entrypoint starts with \\0asm (component)",
        ),
        // D and E: the older artifacts.
        (
            facts(MODULE_CONFIG_V1, &[MODULE_CONTENT_LAYER], ""),
            Entrypoint::Missing,
            "wasm layer 0: config media type application/vnd.module.wasm.config.v1+json",
        ),
        (
            facts(WASM_CONFIG_V1, &[WASM_CONTENT_LAYER], ""),
            Entrypoint::Missing,
            "wasm layer 0: config media type application/vnd.wasm.config.v1+json",
        ),
        // F: runwasi before the standard; the layer wins over a missing entrypoint.
        (
            facts(IMAGE_CONFIG, &[COMPONENT_LAYER], "wasip1/wasm"),
            Entrypoint::Missing,
            "wasm layer 0: platform wasip1/wasm",
        ),
        (
            facts(IMAGE_CONFIG, &[TAR, WASM], "wasi/wasm"),
            Entrypoint::Missing,
            "wasm layer 1: platform wasi/wasm",
        ),
        // G: Spin.
        (
            facts(
                IMAGE_CONFIG,
                &[SPIN_APPLICATION, WASM_CONTENT_LAYER],
                "Wasip1/wasm",
            ),
            Entrypoint::Missing,
            spin,
        ),
        (
            annotated(
                facts(IMAGE_CONFIG, &[TAR], "Wasip1/wasm"),
                annotation::SPIN_DIGEST,
                "x",
            ),
            Entrypoint::Missing,
            spin,
        ),
        // H: a bare artifact.
        (
            facts(EMPTY_CONFIG, &[WASM], ""),
            Entrypoint::Missing,
            "wasm layer 0: empty config and layer media type application/wasm",
        ),
        (
            facts(EMPTY_CONFIG, &[WASM, WASM], ""),
            Entrypoint::Missing,
            "error: the wasm artifact has 2 wasm layers, and only one is allowed",
        ),
        // Linux images.
        (
            facts(IMAGE_CONFIG, &[TAR], "linux/amd64"),
            Entrypoint::Elf,
            "native: entrypoint starts with \\x7fELF",
        ),
        (
            facts(IMAGE_CONFIG, &[TAR], "linux/amd64"),
            Entrypoint::Script,
            "native: entrypoint starts with #!",
        ),
        (
            facts(IMAGE_CONFIG, &[TAR], "linux/arm64"),
            Entrypoint::Missing,
            "native: platform linux/arm64, and the entrypoint is no wasm",
        ),
        (
            facts(IMAGE_CONFIG, &[TAR], "linux/amd64"),
            Entrypoint::WasmOther,
            "native: platform linux/amd64, and the entrypoint is no wasm",
        ),
        // Annotations.
        (
            annotated(
                facts(IMAGE_CONFIG, &[TAR], "linux/amd64"),
                annotation::VARIANT,
                "compat",
            ),
            Entrypoint::Unknown,
            "wasm file: annotation module.wasm.image/variant=compat",
        ),
        (
            annotated(
                facts(IMAGE_CONFIG, &[TAR], "linux/amd64"),
                annotation::HANDLER,
                "wasm",
            ),
            MODULE,
            "wasm file: annotation run.oci.handler=wasm",
        ),
        // "Smart" handlers look at the file, as we do anyway.
        (
            annotated(
                facts(IMAGE_CONFIG, &[TAR], "linux/amd64"),
                annotation::VARIANT,
                "compat-smart",
            ),
            Entrypoint::Elf,
            "native: entrypoint starts with \\x7fELF",
        ),
        // C: a plugin for Envoy.
        (
            annotated(
                facts(IMAGE_CONFIG, &[TAR], ""),
                annotation::VARIANT,
                "compat",
            ),
            Entrypoint::Missing,
            "error: the image is a proxy-wasm plugin, which is no WASI program",
        ),
    ];
    for (facts, entrypoint, expected) in rows {
        let found = explain(facts, RuntimeOverride::Auto, *entrypoint);
        assert_eq!(found, *expected, "{facts:?}");
    }
}

#[test]
fn choose_artifact_type_decides_like_a_config() {
    let mut bare = facts(media_type::EMPTY_CONFIG, &[media_type::WASM], "");
    bare.artifact_type = Some(media_type::WASM_CONFIG_V0.to_owned());
    assert_eq!(
        explain(&bare, RuntimeOverride::Auto, Entrypoint::Missing),
        "wasm layer 0: artifact type application/vnd.wasm.config.v0+json"
    );
}

#[test]
fn choose_with_override_obeys_it() {
    let linux = facts(media_type::IMAGE_CONFIG, &[TAR], "linux/amd64");
    let wasi = facts(media_type::IMAGE_CONFIG, &[TAR], "wasi/wasm");
    assert_eq!(
        explain(&wasi, RuntimeOverride::Native, MODULE),
        "native: `--runtime native` was given"
    );
    assert_eq!(
        explain(&linux, RuntimeOverride::Wasm, MODULE),
        "wasm file: `--runtime wasm` was given"
    );
    let precompiled = explain(&linux, RuntimeOverride::Wasm, Entrypoint::Elf);
    assert!(precompiled.starts_with("error: `entrypoint` is an ELF file"));
}

#[test]
fn choose_from_layer_does_not_look_at_the_entrypoint() {
    let artifact = facts(
        media_type::WASM_CONFIG_V0,
        &[media_type::WASM],
        "wasip1/wasm",
    );
    let choice = choose(&artifact, RuntimeOverride::Auto, || {
        panic!("the layer decides")
    });
    assert_eq!(choice.unwrap().source, Some(WasmSource::Layer(0)));
}

#[test]
fn binary_kind_of_anything_but_wasm_is_refused() {
    let kind = |bytes: &[u8]| binary_kind("layer", bytes);
    assert_eq!(kind(b"\0asm\x01\0\0\0"), Ok(BinaryKind::CoreModule));
    assert_eq!(kind(b"\0asm\x0d\0\x01\0"), Ok(BinaryKind::Component));
    assert_eq!(
        kind(b"\0asm\x02\0\0\0"),
        Err(Unsupported::UnknownVersion("layer".into()))
    );
    assert_eq!(
        kind(b"\x7fELF\x02\x01\x01\0"),
        Err(Unsupported::Precompiled("layer".into()))
    );
    assert_eq!(kind(b"(module)"), Err(Unsupported::NotWasm("layer".into())));
    assert_eq!(kind(b"\0as"), Err(Unsupported::NotWasm("layer".into())));
    assert_eq!(kind(b""), Err(Unsupported::NotWasm("layer".into())));
}

#[test]
fn entrypoint_script_with_wasm_name_is_a_script() {
    assert_eq!(Entrypoint::from_bytes(b"#!/a\n"), Entrypoint::Script);
    assert_eq!(Entrypoint::from_bytes(b""), Entrypoint::Unknown);
}

#[test]
fn normalise_platform_every_spelling_is_one() {
    for os in ["wasi", "wasip1", "wasip2", "wasip3", "Wasip1"] {
        for architecture in ["wasm", "wasm32"] {
            let normal = normalise_platform(os, architecture);
            assert_eq!(normal, ("wasi".to_owned(), "wasm".to_owned()));
            assert!(is_wasm_platform(os, architecture));
        }
    }
    assert_eq!(normalise_platform("wasi", "wasm64").1, "wasm64");
    assert!(!is_wasm_platform("linux", "amd64"));
    assert!(is_wasm_platform("linux", "wasm"));
}
