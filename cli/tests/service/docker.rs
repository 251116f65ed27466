//! dockerd on a containerd, and its command line.

use std::path::Path;
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::client::{Client, Spoken};
use crate::containerd::{Containerd, Snapshotter};
use crate::documents::snippet;
use crate::images::{Daemon, daemon};
use crate::process::{Process, stdout, succeed};
use crate::transcript::{Message, Transcript};

pub(crate) struct Docker<'c, 'm> {
    containerd: &'c Containerd<'m>,
    daemon: Daemon,
    process: Option<Process>,
}

impl<'c, 'm> Docker<'c, 'm> {
    pub(crate) fn start(containerd: &'c Containerd<'m>) -> Self {
        Self::start_with(containerd, |_| {})
    }

    /// One that trusts an authority as it would one of the system's.
    pub(crate) fn trusting(containerd: &'c Containerd<'m>, authority: &Authority) -> Self {
        Self::start_with(containerd, |command| {
            command.env("SSL_CERT_FILE", authority.file());
        })
    }

    fn start_with(containerd: &'c Containerd<'m>, prepare: impl FnOnce(&mut Command)) -> Self {
        let machine = containerd.machine;
        let mut docker = Self { containerd, daemon: daemon("docker"), process: None };
        let config: Value = match containerd.snapshotter {
            Snapshotter::Overlayfs => json!({ "features": { "containerd-snapshotter": true }, "storage-driver": "overlayfs" }),
            Snapshotter::Snap => serde_json::from_str(&snippet("DOCKER.md", "docker", "json")).unwrap(),
        };
        std::fs::write(machine.disk("daemon.json"), config.to_string()).unwrap();
        // Where the command line looks for `docker build`'s program.
        std::fs::create_dir_all(machine.disk("docker-config")).unwrap();
        std::fs::write(machine.disk("docker-config/config.json"), json!({ "cliPluginsExtraDirs": [docker.daemon.bin] }).to_string())
            .unwrap();

        let mut command = machine.command("dockerd", &[&docker.daemon.bin, containerd.bin()]);
        command.arg("--config-file").arg(machine.disk("daemon.json"));
        command.arg("--containerd").arg(containerd.socket());
        command.arg("--data-root").arg(machine.disk("docker")).arg("--exec-root").arg(machine.run("docker"));
        command.arg("--pidfile").arg(machine.run("docker.pid"));
        command.arg("--host").arg(format!("unix://{}", machine.run("docker.sock").display()));
        // What a machine without a firewall to change can do.
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        prepare(&mut command);
        let mut process = Process::spawn("dockerd", &mut command, &machine.disk("docker.log"));
        process.wait_ready(|| docker.command(&["version"]).output().unwrap().status.success());
        docker.process = Some(process);
        docker
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let machine = self.containerd.machine;
        let mut command = machine.command("docker", &[&self.daemon.bin]);
        command.env("DOCKER_HOST", format!("unix://{}", machine.run("docker.sock").display()));
        command.env("DOCKER_CONFIG", machine.disk("docker-config")).args(arguments);
        command
    }

    /// Pulls by the API (`POST /images/create`): `fromImage=REPOSITORY`, with `tag=`, `platform=` as wanted. With the credentials of a
    /// user where given.
    pub(crate) fn pull_telling(&self, query: &str, user: Option<(&str, &str)>) -> Transcript {
        let mut command = self.containerd.machine.command("curl", &[]);
        command.args(["--silent", "--show-error", "--request", "POST", "--write-out", "%{stderr}%{http_code}"]);
        if let Some((username, password)) = user {
            let auth = json!({ "username": username, "password": password }).to_string();
            command.args(["--header", &format!("X-Registry-Auth: {}", URL_SAFE.encode(auth))]);
        }
        command.arg("--unix-socket").arg(self.containerd.machine.run("docker.sock"));
        let output = succeed(command.arg(format!("http://docker/images/create?{query}")));
        let said = String::from_utf8(output.stdout).unwrap();
        if output.stderr == b"200" {
            return Transcript::parse(&said);
        }
        // What fails before there is anything to tell is told in another form.
        let answer: Value = serde_json::from_str(&said).unwrap();
        Transcript(vec![Message { error: Some(answer["message"].as_str().unwrap().to_owned()), ..Message::default() }])
    }

    /// Digests of the images that have lost their name.
    pub(crate) fn dangling(&self) -> Vec<String> {
        let listed = stdout(&mut self.command(&["images", "--no-trunc", "--quiet", "--filter", "dangling=true"]));
        listed.lines().map(str::to_owned).collect()
    }

    pub(crate) fn info(&self) -> String {
        // Warnings go to stderr.
        stdout(&mut self.command(&["info"])).lines().map(|line| format!("{}\n", line.trim())).collect()
    }

    /// Forgets what it keeps to build faster the next time.
    pub(crate) fn prune(&self) {
        succeed(&mut self.command(&["builder", "prune", "--all", "--force"]));
    }

    /// The container's root becomes an image.
    pub(crate) fn commit(&self, container: &str, reference: &str) {
        succeed(&mut self.command(&["commit", container, reference]));
    }

    /// `docker build` of the Dockerfile in a folder; `buildkit` or the builder before it.
    pub(crate) fn build(&self, folder: &Path, reference: &str, buildkit: bool) -> Output {
        let mut command = self.command(&["build", "--network", "none", "--tag", reference]);
        succeed(command.env("DOCKER_BUILDKIT", if buildkit { "1" } else { "0" }).arg(folder))
    }
}

impl Client for Docker<'_, '_> {
    fn namespace(&self) -> &'static str {
        "moby"
    }

    fn pull(&self, reference: &str) -> Result<(), String> {
        let output = self.command(&["pull", reference]).output().unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    fn start(&self, reference: &str, name: &str, command: &[&str]) -> String {
        let mut run = self.command(&["run", "--detach", "--pull", "never", "--network", "none", "--name", name, reference]);
        stdout(run.args(command)).trim().to_owned()
    }

    fn wait(&self, container: &str, _name: &str) -> Spoken {
        let status = stdout(&mut self.command(&["wait", container])).trim().parse().unwrap();
        Spoken { status, ..succeed(&mut self.command(&["logs", container])).into() }
    }

    fn exec(&self, container: &str, command: &[&str]) -> Spoken {
        self.command(&["exec", container]).args(command).output().unwrap().into()
    }

    fn remove(&self, container: &str) {
        succeed(&mut self.command(&["rm", "--force", container]));
    }

    fn remove_image(&self, reference: &str) {
        succeed(&mut self.command(&["rmi", reference]));
        self.containerd.collect_garbage(self.namespace());
    }

    fn finish(&mut self) {}
}
