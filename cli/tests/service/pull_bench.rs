//! A machine to pull to: a containerd, and `snap serve` where that is its snapshotter.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::ctr::{Ctr, Pull};
use crate::machine::Machine;
use crate::process::{stdout, succeed};
use crate::pull::SnapPull;
use crate::serve::Serve;
use crate::transcript::Transcript;

pub(crate) const VERSIONS: [Version; 3] = [Version::V1_6, Version::V1_7, Version::V2];
/// What containerd keeps where nobody says otherwise.
pub(crate) const NAMESPACE: &str = "default";
pub(crate) const ID_CHARS: usize = 12;

pub(crate) struct PullBench<'m> {
    pub(crate) containerd: Containerd<'m>,
    /// None where the snapshotter is containerd's own.
    serve: Option<Serve<'m>>,
    /// What the service has open, and the machine mounted, before there is any image.
    files: Vec<PathBuf>,
    mounts: Vec<PathBuf>,
}

impl<'m> PullBench<'m> {
    pub(crate) fn start(machine: &'m Machine, version: Version, snapshotter: Snapshotter) -> Self {
        Self::serving_with(machine, version, snapshotter, "")
    }

    /// With more configuration for the service, where there is one.
    pub(crate) fn serving_with(machine: &'m Machine, version: Version, snapshotter: Snapshotter, tables: &str) -> Self {
        let serve = (snapshotter == Snapshotter::Snap).then(|| Serve::start(machine, tables));
        let containerd = Containerd::start(machine, version, snapshotter);
        let files = serve.as_ref().map(Serve::open_files).unwrap_or_default();
        Self { containerd, serve, files, mounts: machine.mounts() }
    }

    pub(crate) fn serve(&self) -> &Serve<'m> {
        self.serve.as_ref().unwrap()
    }

    pub(crate) fn snap(&self) -> SnapPull<'_, 'm> {
        SnapPull::new(&self.containerd, NAMESPACE)
    }

    pub(crate) fn ctr(&self) -> Ctr<'_, 'm> {
        Ctr::in_namespace(&self.containerd, Pull::Snap, NAMESPACE)
    }

    /// Pulls, with options before the reference as wanted. What it tells is sound, and ends well.
    #[track_caller]
    pub(crate) fn pull(&self, arguments: &[&str]) -> Transcript {
        self.pull_to(NAMESPACE, arguments)
    }

    /// The same for those who use another namespace.
    #[track_caller]
    pub(crate) fn pull_to(&self, namespace: &'static str, arguments: &[&str]) -> Transcript {
        let (told, spoken) = SnapPull::new(&self.containerd, namespace).run_telling(arguments);
        assert_eq!((spoken.status, spoken.complained.as_str(), told.error()), (0, "", None), "{told:?}");
        told.assert_sound();
        told
    }

    /// Fails to pull; what is said of it to people.
    #[track_caller]
    pub(crate) fn fail(&self, arguments: &[&str]) -> String {
        let (told, spoken) = self.snap().run_telling(arguments);
        assert_eq!(spoken.status, 1, "{spoken:?}");
        assert!(spoken.complained.starts_with(&format!("error: {}", told.error().unwrap())), "{spoken:?}");
        spoken.complained
    }

    /// Runs the image's own command.
    #[track_caller]
    pub(crate) fn says(&self, reference: &str) -> String {
        let ctr = self.ctr();
        let container = ctr.start(reference, "scene", &[]);
        let said = ctr.wait(&container, "scene").well();
        ctr.remove(&container);
        said
    }

    /// Its images' names, and what they name.
    pub(crate) fn images(&self) -> BTreeSet<(String, String)> {
        let listed = stdout(self.containerd.ctr(NAMESPACE).args(["images", "ls"]));
        let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        listed.lines().skip(1).map(|line| (fields(line)[0].clone(), fields(line)[2].clone())).collect()
    }

    /// Removes an image, and has what it was made of collected.
    pub(crate) fn remove(&self, reference: &str) {
        succeed(self.containerd.ctr(NAMESPACE).args(["images", "rm", "--sync", reference]));
    }

    /// That nothing is left of any image.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        self.snap().assert_tidy();
        self.containerd.collect_garbage(NAMESPACE);
        assert_eq!(self.containerd.snapshots(NAMESPACE), [].into());
        assert_eq!(self.containerd.blobs(NAMESPACE), [].into());
        if let Some(serve) = &self.serve {
            serve.assert_empty(&self.files);
        }
        assert_eq!(self.containerd.machine.mounts(), self.mounts);
    }
}

/// Every containerd with each snapshotter, each on a machine of its own.
pub(crate) fn everywhere(work: impl Fn(&PullBench<'_>)) {
    for version in VERSIONS {
        for snapshotter in [Snapshotter::Overlayfs, Snapshotter::Snap] {
            on_machine(version, snapshotter, &work);
        }
    }
}

/// Every containerd with one of the snapshotters, for what does not depend on both.
pub(crate) fn each_containerd(work: impl Fn(&PullBench<'_>)) {
    for (version, snapshotter) in VERSIONS.into_iter().zip([Snapshotter::Snap, Snapshotter::Overlayfs, Snapshotter::Snap]) {
        on_machine(version, snapshotter, &work);
    }
}

fn on_machine(version: Version, snapshotter: Snapshotter, work: impl Fn(&PullBench<'_>)) {
    let machine = Machine::new();
    let bench = PullBench::start(&machine, version, snapshotter);
    // For whoever reads why it failed.
    eprintln!("{version:?}, {}", snapshotter.name());
    work(&bench);
}

/// What a layer is called where it is told how far it is.
pub(crate) fn id(digest: &str) -> &str {
    &digest.strip_prefix("sha256:").unwrap()[..ID_CHARS]
}

/// What a pull ends with where something has come.
pub(crate) fn newer(digest: &str, reference: &str) -> [String; 2] {
    [format!("Digest: {digest}"), format!("Status: Downloaded newer image for {reference}")]
}

/// What it ends with where nothing has.
pub(crate) fn up_to_date(digest: &str, reference: &str) -> [String; 2] {
    [format!("Digest: {digest}"), format!("Status: Image is up to date for {reference}")]
}
