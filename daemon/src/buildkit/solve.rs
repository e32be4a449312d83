//! A build, from the options of the frontend to images that wait for being exported. It runs on a thread
//! that blocks.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use builder::{Ask, BuildError, BuildOptions, Builder, Built, Dockerfile, Kind, Surroundings};
use engine::Engine;
use image::{Platform, PlatformChoice, Reference, RegistryOptions};
use serde_json::json;

use super::agent::Agent;
use super::board::{Blobs, Board, Steps};
use super::client::{Client, Stop};
use super::frontend::Asked;
use super::grpc::{Code, Status};
use super::inputs::{Definition, Sources};
use super::wire::control::SolveRequest;
use crate::error::chain;
use crate::routes::build::context::Means;

/// Instead of a build: what the rules for Dockerfiles find.
const LINT: &str = "frontend.lint";
/// Instead of a build: the stages.
const TARGETS: &str = "frontend.targets";
/// Instead of a build: what can be asked for.
const DESCRIBE: &str = "frontend.subrequests.describe";

/// What a frontend has given.
#[derive(Default)]
pub(super) struct Solved {
    /// The images.
    pub(super) built: Option<Built>,
    /// What it says besides.
    pub(super) metadata: BTreeMap<String, Vec<u8>>,
}

/// What a build is done with.
pub(super) struct Job<'a> {
    pub(super) engine: &'a Engine,
    pub(super) registry: &'a RegistryOptions,
    pub(super) board: &'a Arc<Board>,
    pub(super) stop: &'a Arc<Stop>,
    pub(super) client: &'a Client,
    /// The client by the identifier of one of its other sessions.
    pub(super) other_client: &'a (dyn Fn(&str) -> Result<Client, Status> + Sync),
    /// The context, where it comes in a request of its own.
    pub(super) upload: &'a (dyn Fn() -> Result<Box<dyn Read>, Status> + Sync),
    /// What the build as a whole is asked for.
    pub(super) request: &'a SolveRequest,
}

impl Job<'_> {
    /// Builds, or answers what is asked for instead.
    pub(super) fn run(
        &self,
        frontend: &str,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Solved, Status> {
        let mut asked = Asked::read(frontend, attrs)?;
        let is_here = |name: &Reference| {
            let store = self.engine.store();
            store.resolve(&name.to_string(), None).is_ok()
        };
        asked.caches(self.request.cache.as_ref(), is_here)?;
        asked.results(&self.request.all_exporters())?;
        let agents = Arc::new(Agents::new(self.engine, self.client));
        let agent = match uses_ssh(&asked) {
            true => agents.socket("default").map_err(Status::internal)?,
            false => None,
        };
        let client = |local: &str| match asked.sessions.get(local) {
            Some(id) => (self.other_client)(id),
            None => Ok(self.client.clone()),
        };
        let sources = Sources {
            asked: &asked,
            board: self.board,
            means: Means {
                engine: self.engine,
                registry: self.registry,
                stop: self.stop.flag(),
                agent: agent.as_deref(),
            },
            client: &client,
            upload: self.upload,
        };
        let definition = sources.definition()?;
        match asked.request.as_deref() {
            None => self.build(&asked, &sources, definition, &agents),
            Some(LINT) => self.lint(&definition),
            Some(TARGETS) => targets(&definition),
            Some(DESCRIBE) => Ok(describe()),
            Some(other) => Err(Status::unimplemented(format!(
                "cannot answer {other}: there are {LINT}, {TARGETS} and {DESCRIBE}"
            ))),
        }
    }

    fn build(
        &self,
        asked: &Asked,
        sources: &Sources<'_>,
        mut definition: Definition,
        agents: &Arc<Agents>,
    ) -> Result<Solved, Status> {
        let inputs = sources.context(&mut definition)?;
        let (contexts, _directories) = sources.contexts()?;
        let steps = Steps::new(
            self.board,
            &definition.step,
            &definition.name,
            &definition.text,
        );
        definition.step.done();
        let options = BuildOptions {
            dockerfile_name: inputs.dockerfile_name.clone(),
            dockerfile: inputs.dockerfile.clone(),
            context: Some(inputs.directory.clone()),
            ignore: Some(inputs.ignore.clone()),
            contexts,
            http: self.registry.clone(),
            ask: Some(self.ask(agents)),
            ..asked.options.clone()
        };
        let fetch = |name: &str, platform: &Platform| self.fetch(name, platform);
        let built = Builder::new(self.engine, &fetch, &steps, self.stop.flag()).build(&options);
        let built = built.map_err(|error| {
            let status = failed(&error);
            steps.fail(&status.message);
            status
        })?;
        for image in &built.images {
            let id = image.id.to_string();
            for tag in &options.tags {
                let name = tag.familiar();
                self.engine
                    .record_event("image", "tag", &id, &[("name", &name)]);
            }
        }
        Ok(Solved {
            built: Some(built),
            ..Solved::default()
        })
    }

    /// Who has secrets and agents.
    fn ask(&self, agents: &Arc<Agents>) -> Ask {
        let (client, agents) = (self.client.clone(), Arc::clone(agents));
        Ask {
            secret: Arc::new(move |id| client.secret(id).map_err(|status| status.message)),
            agent: Arc::new(move |id| agents.socket(id)),
        }
    }

    fn fetch(&self, name: &str, platform: &Platform) -> Result<(), BuildError> {
        let reference = Reference::parse(name)?;
        let options = credentials(self.client, self.registry, &reference)
            .map_err(|status| BuildError::Option(status.message))?;
        let step = self.board.begin(&format!("[internal] pull {reference}"));
        let choice = PlatformChoice::Only(platform.clone());
        let store = self.engine.store();
        match store.pull(&reference, &choice, &options, &Blobs::of(&step)) {
            Ok(_) => {
                step.done();
                Ok(())
            }
            Err(error) => {
                step.failed(&chain(&error));
                Err(error.into())
            }
        }
    }

    fn lint(&self, definition: &Definition) -> Result<Solved, Status> {
        let env_of = |image: &str| {
            let found = self.engine.store().resolve(image, None).ok()?;
            Some(found.config.config.env)
        };
        let around = Surroundings {
            env_of: Some(&env_of),
            ignore: None,
        };
        let findings = builder::check(&definition.name, &definition.text, &around)
            .map_err(|error| failed(&error))?;
        let warnings = findings.iter().map(|finding| {
            json!({
                "ruleName": finding.rule,
                "detail": finding.text,
                "location": { "ranges": [{
                    "start": { "line": finding.place.line },
                    "end": { "line": finding.end },
                }] },
            })
        });
        let data = base64::engine::general_purpose::STANDARD.encode(&definition.text);
        let value = json!({
            "warnings": warnings.collect::<Vec<_>>(),
            "sources": [{ "filename": definition.name, "language": "Dockerfile", "data": data }],
        });
        let mut text = String::new();
        for finding in &findings {
            text.push_str(&format!("{finding}\n"));
        }
        let code = i32::from(!findings.is_empty()).to_string();
        Ok(metadata(&value, text, &[("result.statuscode", &code)]))
    }
}

fn metadata(value: &serde_json::Value, text: String, more: &[(&str, &str)]) -> Solved {
    let mut metadata = BTreeMap::from([
        ("result.json".to_owned(), value.to_string().into_bytes()),
        ("result.txt".to_owned(), text.into_bytes()),
        ("version".to_owned(), b"1.0.0".to_vec()),
    ]);
    for (name, value) in more {
        metadata.insert((*name).to_owned(), value.as_bytes().to_vec());
    }
    Solved {
        built: None,
        metadata,
    }
}

/// The stages of a Dockerfile.
fn targets(definition: &Definition) -> Result<Solved, Status> {
    let file =
        Dockerfile::parse(&definition.name, &definition.text).map_err(|error| failed(&error))?;
    let stages = file.instructions.iter().filter_map(|i| match &i.kind {
        Kind::From(from) => Some(from),
        _ => None,
    });
    let stages: Vec<_> = stages.collect();
    let list = stages.iter().enumerate().map(|(number, from)| {
        json!({
            "name": from.stage,
            "base": from.image,
            "platform": from.platform,
            "default": number + 1 == stages.len(),
        })
    });
    let data = base64::engine::general_purpose::STANDARD.encode(&definition.text);
    let mut value = json!({ "targets": list.collect::<Vec<_>>(), "sources": [data] });
    crate::body::drop_nulls(&mut value);
    let names = stages.iter().filter_map(|from| from.stage.as_deref());
    let text: String = names.map(|name| format!("{name}\n")).collect();
    Ok(metadata(&value, text, &[]))
}

/// What can be asked for instead of a build.
fn describe() -> Solved {
    let requests = [
        (LINT, "Lint a Dockerfile"),
        (TARGETS, "List all targets current build supports"),
        (DESCRIBE, "List available subrequest types"),
    ];
    let value = requests.map(|(name, description)| {
        json!({ "name": name, "version": "1.0.0", "type": "rpc", "description": description })
    });
    let text = requests.map(|(name, description)| format!("{name}  {description}\n"));
    metadata(&json!(value), text.concat(), &[])
}

/// Whether a repository needs the client's agent.
fn uses_ssh(asked: &Asked) -> bool {
    let places = asked.remote.iter().chain(asked.contexts.values());
    let mut places = places.map(String::as_str);
    places.any(|place| place.starts_with("ssh://") || place.starts_with("git@"))
}

/// The options for a registry, with the client's credentials.
pub(super) fn credentials(
    client: &Client,
    base: &RegistryOptions,
    reference: &Reference,
) -> Result<RegistryOptions, Status> {
    let mut options = base.clone();
    if let Some((name, secret)) = client.credentials(reference.registry())? {
        // Without a name it is a refresh token.
        let value = match name.as_str() {
            "" | "<token>" => json!({ "identitytoken": secret }),
            name => json!({ "username": name, "password": secret }),
        };
        if let Some(auth) = crate::auth::config(&value, reference.registry()) {
            options.auth = auth;
        }
    }
    Ok(options)
}

/// A build's failure in BuildKit's words, where clients and people know them.
pub(super) fn failed(error: &BuildError) -> Status {
    match error {
        BuildError::Stopped => Status::new(Code::Cancelled, "context canceled"),
        BuildError::Run { place, code, .. } => {
            let line = place.text.trim();
            let command = line
                .split_once(' ')
                .map_or(line, |(_, command)| command.trim());
            Status::new(
                Code::Unknown,
                format!(
                    "{place}: process \"/bin/sh -c {command}\" did not complete successfully: exit code: {code}"
                ),
            )
        }
        error => {
            let mut text = chain(error);
            if let Some(hint) = error.hint() {
                text.push_str("\nhint: ");
                text.push_str(&hint);
            }
            let code = match error {
                BuildError::At { .. } | BuildError::NoSuchTarget { .. } => Code::InvalidArgument,
                _ => Code::Unknown,
            };
            Status::new(code, text)
        }
    }
}

/// The sockets of the client's SSH agents, made when they are needed.
struct Agents {
    client: Client,
    base: PathBuf,
    open: Mutex<BTreeMap<String, Agent>>,
}

impl Agents {
    fn new(engine: &Engine, client: &Client) -> Self {
        Self {
            client: client.clone(),
            base: engine.layout().run().join("build"),
            open: Mutex::default(),
        }
    }

    fn socket(&self, id: &str) -> Result<Option<PathBuf>, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = open.get(id) {
            return Ok(Some(agent.socket.clone()));
        }
        if !self.client.has_agent(id) {
            return Ok(None);
        }
        let failed = |error: std::io::Error| format!("cannot make its directory: {error}");
        sys::durable::make_private_dir(&self.base).map_err(failed)?;
        let dir = tempfile::Builder::new()
            .prefix("agent-")
            .tempdir_in(&self.base)
            .map_err(failed)?;
        let agent = Agent::listen(&self.client, id, dir).map_err(|status| status.message)?;
        let socket = agent.socket.clone();
        open.insert(id.to_owned(), agent);
        Ok(Some(socket))
    }
}
