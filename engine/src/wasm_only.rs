//! `--isolation wasm-only`: the sandbox without a container around it. No monitor, no record, no
//! namespaces, no control group: this process becomes the wasm host.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use runtime::RestartPolicy;
use runtime_wasm::{ARTIFACT_FD, GuestRoot, NetworkGrant, RootAccess, SPEC_FD, WasmSpec};

use crate::create::guest_memory;
use crate::options::{ContainerOptions, Network};
use crate::{Engine, EngineError, HealthOptions};

/// Descriptors of this process are moved out of the way of those that the host inherits.
const FREE: i32 = 10;

impl Engine {
    /// Runs a wasm image or module in this process, which ends with the guest's exit code. The guest
    /// reads the image's files and can write none.
    ///
    /// # Errors
    /// When an option needs a container, or the guest cannot be started.
    pub fn run_wasm_only(&self, options: &ContainerOptions) -> Result<Infallible, EngineError> {
        refuse_container_options(options)?;
        let subject = self.subject(options)?;
        let (Some(path), Some(program)) = (&subject.module, subject.args.first()) else {
            let text = "cannot use --isolation wasm-only: the image is no wasm image";
            return Err(EngineError::Unsupported(text.to_owned()));
        };
        let [root] = subject.layers.as_slice() else {
            let text = format!(
                "cannot use --isolation wasm-only: `{}` has more than one layer, which need a mount",
                options.image
            );
            return Err(EngineError::Unsupported(text));
        };
        let (mut module, _) = self.module_at(path, program, &subject.wasm)?;
        module.port = subject.http_port(&[]);
        let mut spec = WasmSpec::new(module.kind, subject.args.clone());
        module.describe(&mut spec);
        spec.env = subject
            .config
            .env
            .iter()
            .chain(&options.env)
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let cwd = options
            .workdir
            .as_ref()
            .unwrap_or(&subject.config.working_dir);
        if !cwd.is_empty() {
            spec.cwd.clone_from(cwd);
        }
        spec.network = match options.network {
            Network::Host => NetworkGrant::Inherit,
            _ => NetworkGrant::None,
        };
        spec.root = RootAccess::ReadOnly;
        spec.guest_root = match options.wasm.no_files {
            true => GuestRoot::None,
            false => GuestRoot::Path(root.display().to_string()),
        };
        spec.limits.memory_bytes = options.memory_bytes.map(guest_memory);
        let artifact = self.compiled(&module)?.path;
        let failed = EngineError::io("start the wasm host");
        let artifact = File::open(artifact).map_err(&failed)?;
        self.become_host(&spec, &artifact, options.interactive)
            .map_err(failed)
    }

    fn become_host(
        &self,
        spec: &WasmSpec,
        artifact: &File,
        interactive: bool,
    ) -> io::Result<Infallible> {
        let host = self.executables.wasm_host_path(&self.layout.exe())?;
        let spec = spec.encode().map_err(io::Error::other)?;
        let spec = sys::sealed::seal("ketch-wasm-spec", &spec)?;
        let spec = sys::exec::move_descriptor_above(spec.as_fd(), FREE)?;
        let artifact = sys::exec::move_descriptor_above(artifact.as_fd(), FREE)?;
        let mut command = Command::new(host);
        command.env_clear();
        if !interactive {
            command.stdin(Stdio::null());
        }
        // From here on nothing of this process but the standard streams and these two is used.
        sys::exec::place_descriptor(spec.as_fd(), SPEC_FD)?;
        sys::exec::place_descriptor(artifact.as_fd(), ARTIFACT_FD)?;
        sys::exec::reset_signals();
        Err(command.exec())
    }
}

fn refuse_container_options(options: &ContainerOptions) -> Result<(), EngineError> {
    let given = [
        (options.name.is_some(), "--name"),
        (options.user.is_some(), "--user"),
        (options.hostname.is_some(), "--hostname"),
        (!options.mounts.is_empty(), "--volume"),
        (!options.volumes_from.is_empty(), "--volumes-from"),
        (
            matches!(options.network, Network::Container(_) | Network::Joined(_)),
            "--network",
        ),
        (options.nano_cpus.is_some(), "--cpus"),
        (options.pids_limit.is_some(), "--pids-limit"),
        (options.console.is_some(), "--tty"),
        (options.health != HealthOptions::default(), "--health-cmd"),
        (options.restart != RestartPolicy::No, "--restart"),
    ];
    let first = given.into_iter().find(|(given, _)| *given);
    let first = first.map(|(_, option)| option);
    match first.or_else(|| options.isolation.first_given()) {
        Some(option) => Err(EngineError::Unsupported(format!(
            "cannot use {option} with --isolation wasm-only: it needs a container"
        ))),
        None => Ok(()),
    }
}
