//! Images of a daemon: pull, push, tag, rmi, load, save.

use base64::Engine as _;
use clap::Args;
use image::{AuthConfig, Credentials, Reference};
use serde_json::json;

use super::client::{Ask, Client, encoded, with_query};
use super::copy::{from_file, from_stdin, to_stdout};
use super::progress::{Shown, follow, objects};
use crate::commands::credential_path;
use crate::render;
use crate::settings::variable;

/// Options of `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Which image of an index: os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Print nothing but the name
    #[arg(short, long)]
    quiet: bool,
    /// Image
    image: String,
}

/// Options of `push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Print nothing but the name
    #[arg(short, long)]
    quiet: bool,
    /// Image
    image: String,
}

/// Arguments of `tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Image, by name or id
    image: String,
    /// New name
    name: String,
}

/// Options of `rmi`.
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Remove names of images that are used, and images with several names
    #[arg(short, long)]
    force: bool,
    /// Images, by name or id
    #[arg(required = true)]
    images: Vec<String>,
}

/// Options of `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Archive (default: standard input)
    #[arg(short, long, value_name = "FILE")]
    input: Option<std::path::PathBuf>,
}

/// Arguments of `save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Images, by name or id; the archive goes to standard output
    #[arg(required = true)]
    images: Vec<String>,
}

/// The path of an image; slashes of its name stay.
pub(crate) fn of_image(name: &str, verb: &str) -> String {
    let parts: Vec<String> = name.split('/').map(encoded).collect();
    format!("/images/{}{verb}", parts.join("/"))
}

/// The header with the credentials for an image's registry; nothing where there are none.
fn authorization(image: &str) -> anyhow::Result<Option<String>> {
    let reference = Reference::parse(image)?;
    let inline = variable("DOCKER_AUTH_CONFIG")?;
    let config = AuthConfig::load(credential_path()?.as_deref(), inline.as_deref())?;
    let server = reference.registry();
    let document = match config.credentials(&reference)? {
        Credentials::Anonymous => return Ok(None),
        Credentials::Password { username, password } => json!({
            "username": username, "password": password.expose(), "serveraddress": server,
        }),
        Credentials::IdentityToken(token) => json!({
            "identitytoken": token.expose(), "serveraddress": server,
        }),
        Credentials::RegistryToken(token) => json!({
            "registrytoken": token.expose(), "serveraddress": server,
        }),
        _ => anyhow::bail!("cannot use the credentials for `{server}` at a daemon"),
    };
    let encoder = base64::engine::general_purpose::URL_SAFE;
    Ok(Some(encoder.encode(document.to_string())))
}

fn authorized<'a>(ask: Ask<'a>, image: &str) -> anyhow::Result<Ask<'a>> {
    Ok(match authorization(image)? {
        Some(value) => ask.header("x-registry-auth", value),
        None => ask,
    })
}

/// Has a daemon get an image.
pub(crate) async fn pull_image(
    client: &Client,
    image: &str,
    platform: Option<&str>,
    shown: Shown,
) -> anyhow::Result<()> {
    let reference = Reference::parse(image)?;
    let whole = reference.to_string();
    let (name, tag) = match whole.split_once('@') {
        Some((name, digest)) => (name.to_owned(), digest.to_owned()),
        None => (
            reference.name(),
            reference.tag().unwrap_or("latest").to_owned(),
        ),
    };
    let mut query = vec![("fromImage", name.as_str()), ("tag", tag.as_str())];
    query.extend(platform.map(|platform| ("platform", platform)));
    let ask = authorized(Ask::post(with_query("/images/create", &query)), image)?;
    follow(client.ask(ask).await?, shown).await.map(drop)
}

fn progress(quiet: bool) -> Shown {
    if quiet {
        Shown::Nothing
    } else {
        Shown::Progress
    }
}

/// `pull`.
pub(crate) async fn pull(client: &Client, args: &PullArgs) -> anyhow::Result<u8> {
    pull_image(
        client,
        &args.image,
        args.platform.as_deref(),
        progress(args.quiet),
    )
    .await?;
    render::print(&Reference::parse(&args.image)?.to_string())?;
    Ok(0)
}

/// `push`.
pub(crate) async fn push(client: &Client, args: &PushArgs) -> anyhow::Result<u8> {
    let reference = Reference::parse(&args.image)?;
    let tag = reference.tag().unwrap_or("latest");
    let path = of_image(&reference.name(), "/push");
    let ask = Ask::post(with_query(&path, &[("tag", tag)]));
    let ask = match authorization(&args.image)? {
        Some(value) => ask.header("x-registry-auth", value),
        // Daemons before 1.41 insist on the header.
        None => ask.header(
            "x-registry-auth",
            base64::engine::general_purpose::URL_SAFE.encode("{}"),
        ),
    };
    follow(client.ask(ask).await?, progress(args.quiet)).await?;
    render::print(&reference.to_string())?;
    Ok(0)
}

/// `tag`.
pub(crate) async fn tag(client: &Client, args: &TagArgs) -> anyhow::Result<u8> {
    let reference = Reference::parse(&args.name)?;
    let (name, tag) = (reference.name(), reference.tag().unwrap_or("latest"));
    let path = of_image(&args.image, "/tag");
    client
        .done(Ask::post(with_query(
            &path,
            &[("repo", &name), ("tag", tag)],
        )))
        .await?;
    Ok(0)
}

/// `rmi`.
pub(crate) async fn rmi(client: &Client, args: &RmiArgs) -> anyhow::Result<u8> {
    let force = if args.force { "1" } else { "0" };
    let mut code = 0;
    for name in &args.images {
        let path = with_query(&of_image(name, ""), &[("force", force)]);
        match client.value(Ask::delete(path)).await {
            Ok(removed) => {
                for item in removed.as_array().into_iter().flatten() {
                    for (key, word) in [("Untagged", "Untagged"), ("Deleted", "Deleted")] {
                        if let Some(text) = item[key].as_str() {
                            render::print(&format!("{word}: {}", render::clean(text)))?;
                        }
                    }
                }
            }
            Err(error) => {
                render::report(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

/// `load`.
pub(crate) async fn load(client: &Client, args: &LoadArgs) -> anyhow::Result<u8> {
    let (body, handle) = match &args.input {
        None => from_stdin(),
        Some(path) => from_file(path)?,
    };
    let ask =
        Ask::post("/images/load?quiet=1").header("content-type", "application/x-tar".to_owned());
    let response = client.ask(ask.body(body)).await?;
    let loaded = objects(response, |value| {
        if let Some(text) = value["errorDetail"]["message"]
            .as_str()
            .or(value["error"].as_str())
        {
            anyhow::bail!("{}", render::clean(text.trim_end()));
        }
        if let Some(text) = value["stream"].as_str() {
            render::print(&render::clean(text.trim_end()))?;
        }
        Ok(())
    });
    loaded.await?;
    handle.await??;
    Ok(0)
}

/// `save`.
pub(crate) async fn save(client: &Client, args: &SaveArgs) -> anyhow::Result<u8> {
    let query: Vec<_> = args
        .images
        .iter()
        .map(|name| ("names", name.as_str()))
        .collect();
    to_stdout(
        client
            .ask(Ask::get(with_query("/images/get", &query)))
            .await?,
    )
    .await?;
    Ok(0)
}
