//! What the started processes do.

use std::fs;
use std::path::Path;

use snap_fs::{Connection, fd_store, keeper};

use crate::scene::{THREADS, command, mount_point, saved, socket, wait};
use crate::tiny::{FILE_BYTES, Mode, Tiny, content, number};

/// The first argument of a started process.
pub(crate) const MARK: &str = "--actor";

pub(crate) fn run(role: &str, dir: &Path, rest: &[String]) {
    let argument = rest.first().map_or("", String::as_str);
    match role {
        "daemon" => daemon(dir, if argument == "withhold" { Mode::Withhold } else { Mode::Answer }),
        "keeper" => keeper::run(&socket(dir)).unwrap(),
        "reader" => read(&mount_point(dir).join(argument)),
        "fetcher" => println!("{:?}", keeper::fetch(&socket(dir)).map(|device| device.is_some()).map_err(|error| error.to_string())),
        "storing-daemon" => storing_daemon(dir),
        "restored-daemon" => restored_daemon(dir),
        other => panic!("no role {other}"),
    }
}

/// As the product does it: adopts what a keeper has, else mounts and starts a keeper.
fn daemon(dir: &Path, mode: Mode) {
    let connection = match keeper::fetch(&socket(dir)).unwrap() {
        Some(device) => Connection::adopt(device, &mount_point(dir), &saved(dir)).unwrap(),
        None => {
            let connection = Connection::mount(&mount_point(dir), "test", &saved(dir)).unwrap();
            keeper::start(command("keeper", dir), connection.device()).unwrap();
            println!("mounted");
            connection
        }
    };
    assert!(connection.is_mounted().unwrap());
    serve(connection, mode);
}

fn serve(connection: Connection, mode: Mode) {
    let mut served = connection.serve(Tiny::new(mode), THREADS).unwrap();
    println!("serving");
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(served.ended()).unwrap();
    println!("ended");
}

fn read(path: &Path) {
    println!("reading");
    let found = fs::read(path).unwrap();
    let number = number(path.file_name().unwrap().to_str().unwrap()).unwrap();
    assert!(found == content(number, 0, FILE_BYTES), "wrong bytes in {}", path.display());
}

fn storing_daemon(dir: &Path) {
    let connection = Connection::mount(&mount_point(dir), "test", &saved(dir)).unwrap();
    println!("stored {}", fd_store::store(connection.device()).unwrap());
    fd_store::ready().unwrap();
    serve(connection, Mode::Withhold);
}

fn restored_daemon(dir: &Path) {
    let Some(device) = fd_store::take().unwrap() else {
        return println!("nothing");
    };
    assert!(fd_store::take().unwrap().is_none(), "it is owned once");
    let mut served = Connection::adopt(device, &mount_point(dir), &saved(dir)).unwrap().serve(Tiny::new(Mode::Answer), THREADS).unwrap();
    println!("serving");
    wait(served.ended()).unwrap();
    fd_store::stopping().unwrap();
}
