//! Whoever is not root has no business at the socket.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::client::Spoken;
use crate::machine::Machine;
use crate::serve::Serve;

const NOBODY: &str = "65534";
const METHOD: &str = "http://snap/containerd.services.snapshots.v1.Snapshots/Stat";

/// Calls the service as a user: what HTTP says of it.
fn call(socket: &Path, uid: &str) -> Spoken {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", uid, "--regid", uid, "--clear-groups", "curl", "--silent", "--show-error", "--http2-prior-knowledge"]);
    command.args(["--header", "Content-Type: application/grpc", "--header", "TE: trailers", "--data-binary", "@-", "--include"]);
    // An empty message: a Stat of no name.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [0; 5]).unwrap();
    command.stdin(file.reopen().unwrap()).arg("--unix-socket").arg(socket).arg(METHOD);
    command.output().unwrap().into()
}

#[test]
fn another_user_is_refused_whatever_the_socket_permits() {
    // Where everyone may go.
    let public = tempfile::tempdir().unwrap();
    set_permissions(public.path(), Permissions::from_mode(0o755)).unwrap();
    let socket = public.path().join("snap.sock");
    let machine = Machine::new();
    let mut serve = Serve::listening_at(&machine, socket.clone(), "");
    serve.resume();

    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(call(&socket, "0").well().contains("grpc-status: "));
    let refused = call(&socket, NOBODY);
    assert_eq!((refused.status, refused.said.as_str()), (7, ""), "curl: {}", refused.complained);

    set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let refused = call(&socket, NOBODY);
    assert_ne!(refused.status, 0);
    assert_eq!(refused.said, "");
    assert!(serve.log().contains("refused a connection of another user"));
    assert!(call(&socket, "0").well().contains("grpc-status: "));
}
