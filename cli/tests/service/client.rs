//! What all clients of containerd do, each by its own means.

use std::process::Output;

/// What a command wrote and how it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Spoken {
    pub(crate) status: i32,
    /// Its stdout; of a container's log, all of it.
    pub(crate) said: String,
    pub(crate) complained: String,
}

impl Spoken {
    /// What it wrote, where it succeeded.
    #[track_caller]
    pub(crate) fn well(self) -> String {
        assert_eq!(self.status, 0, "it said: {}\nand: {}", self.said, self.complained);
        self.said
    }
}

impl From<Output> for Spoken {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { status: output.status.code().unwrap(), said: text(&output.stdout), complained: text(&output.stderr) }
    }
}

pub(crate) trait Client {
    /// containerd's namespace in which it keeps its things.
    fn namespace(&self) -> &'static str;

    fn pull(&self, reference: &str) -> Result<(), String>;

    /// Starts a container; without a command the image's own. Returns the container's ID.
    fn start(&self, reference: &str, name: &str, command: &[&str]) -> String;

    /// Waits for the end of a container that `start` started under the given name.
    fn wait(&self, container: &str, name: &str) -> Spoken;

    /// Runs a command in a running container.
    fn exec(&self, container: &str, command: &[&str]) -> Spoken;

    /// Stops and removes a container.
    fn remove(&self, container: &str);

    /// Removes an image, and waits until containerd has collected what it was made of.
    fn remove_image(&self, reference: &str);

    /// Removes what the client itself has left.
    fn finish(&mut self);
}
