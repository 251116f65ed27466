//! Sequences of events, and the text that they come to.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use snap_digest::Digest;
use snap_fs::Rung;
use snap_snapshotter::pull::{Event, Outcome, Step};

use crate::progress::live::Size;
use crate::progress::printer::{Form, Printer, Pulled};
use crate::progress::said::Said;
use crate::progress::screen::Screen;

const WIDE: Size = Size { columns: 120, rows: 24 };
const NARROW: Size = Size { columns: 40, rows: 6 };

fn layer(number: u8) -> Digest {
    Digest::from_bytes([number; 32])
}

fn resolved() -> Event {
    Event::Resolved { repository: "library/debian".to_owned(), tag: "12".to_owned() }
}

fn step(number: u8, step: Step) -> Event {
    Event::Layer { layer: layer(number), step }
}

fn downloading(number: u8, current_bytes: u64) -> Event {
    step(number, Step::Downloading { current_bytes, total_bytes: 2_500_000 })
}

fn indexing(number: u8, current_bytes: u64) -> Event {
    step(number, Step::Indexing { current_bytes, total_bytes: 4_000_000 })
}

fn pulled(is_newer: bool) -> Pulled {
    Pulled {
        name: "docker.io/library/debian:12".to_owned(),
        familiar: "debian:12".to_owned(),
        digest: Digest::from_bytes([0xab; 32]),
        is_newer,
    }
}

/// A pull with a layer of each kind.
fn events() -> Vec<Event> {
    let declined = Outcome::Declined { reason: "the registry has no ranges".to_owned() };
    let mut events = vec![resolved()];
    events.extend((0x11..=0x66).step_by(0x11).map(|number| step(number, Step::Queued)));
    events.extend([
        step(0x11, Step::Done(Outcome::AlreadyExists)),
        step(0x22, Step::Done(Outcome::Lazy(Some(Rung::Estargz)))),
        step(0x33, Step::Done(Outcome::Lazy(Some(Rung::LocalIndex)))),
        step(0x66, Step::Done(Outcome::Lazy(None))),
        indexing(0x44, 0),
        indexing(0x44, 1_000_000),
        step(0x44, Step::Done(Outcome::Lazy(Some(Rung::StreamingPass)))),
        step(0x55, Step::Waiting),
        downloading(0x55, 0),
        downloading(0x55, 1_250_000),
        step(0x55, Step::Downloaded),
        step(0x55, Step::Extracting),
        step(0x55, Step::Done(declined)),
    ]);
    events
}

/// A printer and a clock that goes on by `period` with each event.
struct Told {
    printer: Printer<Vec<u8>>,
    now: Instant,
    period: Duration,
}

impl Told {
    fn new(form: Form, period: Duration) -> Self {
        Self { printer: Printer::new(form, Vec::new()), now: Instant::now(), period }
    }

    fn events(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.printer.event(event, self.now).unwrap();
            self.now += self.period;
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.printer.written().to_vec()).unwrap()
    }

    fn messages(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn screen(&self, size: Size) -> Screen {
        let mut screen = Screen::new(size);
        screen.write(&self.text());
        screen
    }
}

const SLOW: Duration = Duration::from_secs(1);
const FAST: Duration = Duration::from_millis(1);

#[test]
fn plain_lines_are_dockers() {
    let mut told = Told::new(Form::Plain, FAST);
    told.printer.say("Using default tag: 12").unwrap();
    told.events(events());
    told.printer.pulled(&pulled(true)).unwrap();
    told.printer.name("docker.io/library/debian:12").unwrap();
    let wanted = "Using default tag: 12
12: Pulling from library/debian
111111111111: Pulling fs layer
222222222222: Pulling fs layer
333333333333: Pulling fs layer
444444444444: Pulling fs layer
555555555555: Pulling fs layer
666666666666: Pulling fs layer
111111111111: Already exists
222222222222: Mounted lazily (eStargz)
333333333333: Mounted lazily (local index)
666666666666: Mounted lazily
444444444444: Indexed while streaming
555555555555: Waiting
555555555555: Download complete
555555555555: Unpacked: the registry has no ranges
Digest: sha256:abababababababababababababababababababababababababababababababab
Status: Downloaded newer image for debian:12
docker.io/library/debian:12
";
    assert_eq!(told.text(), wanted);
}

#[test]
fn quiet_is_the_name_alone() {
    let mut told = Told::new(Form::Quiet, FAST);
    told.printer.say("Using default tag: 12").unwrap();
    told.events(events());
    told.printer.pulled(&pulled(true)).unwrap();
    told.printer.name("docker.io/library/debian:12").unwrap();
    assert_eq!(told.text(), "docker.io/library/debian:12\n");
}

#[test]
fn an_image_that_is_there_has_no_layers() {
    let mut told = Told::new(Form::Plain, FAST);
    told.events([resolved()]);
    told.printer.pulled(&pulled(false)).unwrap();
    let wanted = "12: Pulling from library/debian
Digest: sha256:abababababababababababababababababababababababababababababababab
Status: Image is up to date for debian:12
";
    assert_eq!(told.text(), wanted);
}

#[test]
fn json_messages_are_dockers() {
    let mut told = Told::new(Form::Json, SLOW);
    let steps = [Step::Queued, Step::Downloading { current_bytes: 1_250_000, total_bytes: 2_500_000 }, Step::Downloaded, Step::Extracting];
    told.events([resolved()].into_iter().chain(steps.into_iter().map(|next| step(0x11, next))));
    told.printer.tick(told.now).unwrap();
    told.events([step(0x11, Step::Done(Outcome::Unpacked))]);
    told.printer.pulled(&pulled(true)).unwrap();
    told.printer.name("docker.io/library/debian:12").unwrap();
    told.printer.failed("no space left").unwrap();
    let bar = format!("[{}>{}]   1.25MB/2.5MB", "=".repeat(25), " ".repeat(25));
    let digest = Digest::from_bytes([0xab; 32]).to_string();
    let wanted = [
        json!({"status": "Pulling from library/debian", "id": "12"}),
        json!({"status": "Pulling fs layer", "progressDetail": {}, "id": "111111111111"}),
        json!({"status": "Downloading", "progressDetail": {"current": 1_250_000, "total": 2_500_000}, "progress": bar, "id": "111111111111"}),
        json!({"status": "Download complete", "progressDetail": {"hidecounts": true}, "id": "111111111111"}),
        json!({"status": "Extracting", "progressDetail": {"current": 1, "units": "s"}, "progress": "1 s", "id": "111111111111"}),
        json!({"status": "Extracting", "progressDetail": {"current": 2, "units": "s"}, "progress": "2 s", "id": "111111111111"}),
        json!({"status": "Pull complete", "progressDetail": {"hidecounts": true}, "id": "111111111111"}),
        json!({"status": format!("Digest: {digest}")}),
        json!({"status": "Status: Downloaded newer image for debian:12"}),
        json!({"aux": {"name": "docker.io/library/debian:12", "digest": digest, "newer": true}}),
        json!({"errorDetail": {"message": "no space left"}, "error": "no space left"}),
    ];
    assert_eq!(told.messages(), wanted);
}

#[test]
fn numbers_are_told_ten_times_a_second_for_each_layer() {
    let mut told = Told::new(Form::Json, Duration::from_millis(10));
    for current in 0..100 {
        told.events([downloading(0x11, current)]);
    }
    told.printer.tick(told.now).unwrap();
    let numbers: Vec<u64> =
        told.messages().iter().map(|message| message["progressDetail"]["current"].as_u64().unwrap_or_default()).collect();
    assert_eq!(numbers, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99]);
}

#[test]
fn what_waited_is_told_when_it_is_time_and_never_after_the_last_word() {
    let mut told = Told::new(Form::Json, FAST);
    told.events([downloading(0x11, 1), downloading(0x11, 2)]);
    assert!(told.printer.next_tick().is_some());
    told.printer.tick(told.now + SLOW).unwrap();
    assert!(told.printer.next_tick().is_none());
    told.events([downloading(0x11, 3), step(0x11, Step::Done(Outcome::Unpacked)), downloading(0x11, 4)]);
    assert!(told.printer.next_tick().is_none());
    told.printer.tick(told.now + 2 * SLOW).unwrap();
    let statuses: Vec<String> = told.messages().iter().map(|message| message["status"].as_str().unwrap().to_owned()).collect();
    assert_eq!(statuses, ["Downloading", "Downloading", "Pull complete"]);
}

#[test]
fn lines_change_in_place() {
    let mut told = Told::new(Form::Live(|| WIDE), SLOW);
    told.printer.say("Using default tag: 12").unwrap();
    told.events([resolved(), step(0x11, Step::Queued), step(0x22, Step::Queued), downloading(0x11, 1_250_000), indexing(0x22, 0)]);
    let screen = told.screen(WIDE);
    let half = format!("{}>{}", "=".repeat(25), " ".repeat(25));
    let wanted = [
        "Using default tag: 12".to_owned(),
        "12: Pulling from library/debian".to_owned(),
        format!("111111111111: Downloading [{half}]   1.25MB/2.5MB"),
        format!("222222222222: Indexing [>{}]       0B/4MB", " ".repeat(50)),
    ];
    assert_eq!(screen.lines(), wanted);
}

#[test]
fn a_narrow_terminal_gets_no_bars_and_whole_last_lines() {
    let mut told = Told::new(Form::Live(|| NARROW), SLOW);
    told.events([downloading(0x11, 1_250_000)]);
    told.events([step(0x22, Step::Done(Outcome::Declined { reason: "a very long reason indeed".to_owned() }))]);
    assert_eq!(told.screen(NARROW).lines(), ["111111111111: Downloading   1.25MB/2.5M", "222222222222: Unpacked: a very long rea"]);

    told.printer.leave().unwrap();
    let wanted = ["111111111111: Downloading   1.25MB/2.5MB", "222222222222: Unpacked: a very long reas", "on indeed"];
    assert_eq!(told.screen(NARROW).lines(), wanted);
}

#[test]
fn more_layers_than_rows_are_counted() {
    let mut told = Told::new(Form::Live(|| NARROW), SLOW);
    told.events((1..=9).map(|number| step(number, Step::Queued)));
    told.events([1, 3, 4].map(|number| step(number, Step::Done(Outcome::Lazy(None)))));
    let screen = told.screen(NARROW);
    let queued = |number: u8| format!("{}: Pulling fs layer", layer(number).short());
    let wanted = [queued(2), queued(5), queued(6), queued(7), "5 more layers, 3 of them done".to_owned(), String::new()];
    assert_eq!(screen.visible(), wanted);
}

#[test]
fn fetching_has_words_too() {
    let mut told = Told::new(Form::Live(|| WIDE), SLOW);
    told.printer.layer(layer(0x11), Said::fetching(1_250_000, 2_500_000), told.now).unwrap();
    told.printer.layer(layer(0x22), Said::complete(), told.now + SLOW).unwrap();
    let half = format!("{}>{}", "=".repeat(25), " ".repeat(25));
    let wanted = [format!("111111111111: Fetching [{half}]   1.25MB/2.5MB"), "222222222222: Complete".to_owned()];
    assert_eq!(told.screen(WIDE).lines(), wanted);
}

#[test]
fn the_next_image_leaves_the_lines_of_the_last_alone() {
    let mut told = Told::new(Form::Live(|| WIDE), SLOW);
    for is_newer in [true, false] {
        told.events([resolved(), step(0x11, Step::Done(Outcome::Unpacked))]);
        told.printer.pulled(&pulled(is_newer)).unwrap();
    }
    let lines = told.screen(WIDE).lines();
    assert_eq!(lines.iter().filter(|line| *line == "111111111111: Pull complete").count(), 2);
    assert_eq!(lines.last().unwrap(), "Status: Image is up to date for debian:12");
}

fn any_step() -> impl Strategy<Value = Step> {
    let bytes = (any::<u32>(), any::<u32>()).prop_map(|(current, total)| (u64::from(current), u64::from(total)));
    prop_oneof![
        Just(Step::Queued),
        Just(Step::Waiting),
        bytes.clone().prop_map(|(current_bytes, total_bytes)| Step::Downloading { current_bytes, total_bytes }),
        bytes.prop_map(|(current_bytes, total_bytes)| Step::Indexing { current_bytes, total_bytes }),
        Just(Step::Downloaded),
        Just(Step::Extracting),
        Just(Step::Done(Outcome::Unpacked)),
        ".{0,60}".prop_map(|reason| Step::Done(Outcome::Declined { reason })),
    ]
}

proptest! {
    /// Whatever happens and however small the terminal is: what stays is each layer once, in order, whole, with its last word.
    #[test]
    fn every_layer_is_left_once(
        steps in prop::collection::vec((1..40u8, any_step()), 0..200),
        columns in 1..140u16, rows in 1..30u16, period_ms in 0..200u64,
    ) {
        // The printer takes a function; the size of this case is kept where it finds it.
        std::thread_local!(static SIZE: std::cell::Cell<Size> = const { std::cell::Cell::new(NARROW) });
        let size = Size { columns, rows };
        SIZE.set(size);
        let mut live = Told::new(Form::Live(|| SIZE.get()), Duration::from_millis(period_ms));
        let mut last: Vec<(Digest, Said)> = Vec::new();
        live.printer.say("before").unwrap();
        for (number, next) in steps {
            live.events([step(number, next.clone())]);
            let said = Said::from(next);
            match last.iter_mut().find(|(digest, _)| *digest == layer(number)) {
                Some((_, before)) if before.is_last || (before.status == said.status && before.status == "Extracting") => {}
                Some((_, before)) => *before = said,
                None => last.push((layer(number), said)),
            }
        }
        live.printer.say("after").unwrap();
        let mut wanted = Screen::new(size);
        wanted.write("before\n");
        for (digest, said) in last {
            let amount = said.amount.text(columns > 110);
            let line = format!("{}: {} {amount}", digest.short(), said.status);
            wanted.write(line.trim_end());
            wanted.write("\n");
        }
        wanted.write("after\n");
        let screen = live.screen(size);
        prop_assert_eq!(screen.lines(), wanted.lines());
    }
}
