//! What the console decides, typed as keys: no terminal, no engine.

mod tui_scenes;

use crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Rect;
use redis_duplex::{
    control::protocol::{Failure, FailureKind, Reply, Request},
    engine::net::NetError,
    model::{
        AccountSource, CheckState, Databases, Direction, EventKind, ExistingKeys, LinkState, Severity, Side, Topology,
        job::ReadFrom, job::file, secret::Inline,
    },
    tui::{
        app::{App, Screen},
        effect::Effect,
        i18n::Lang,
        keymap::{Action, BINDINGS, Context},
        mouse::Click,
        msg::{Act, EngineMsg, FileMsg, Msg, Tag, Wanted},
        overlay::Overlay,
        spoken,
        theme::ThemeName,
        update::update,
        view,
        wizard::{Launching, Purpose, Slot, Step, Wizard},
    },
};
use tui_scenes::*;

const EN: (Lang, ThemeName) = (Lang::En, ThemeName::Dark);

fn wizard(app: &App) -> &Wizard {
    match &app.screen {
        Screen::Wizard(w) => w,
        other => panic!("no wizard: {other:?}"),
    }
}

fn requests(effects: &[Effect]) -> Vec<&Request> {
    effects
        .iter()
        .filter_map(|e| match e {
            Effect::Send { request, .. } => Some(&**request),
            _ => None,
        })
        .collect()
}

#[test]
fn authorize_dials_both_sides_and_goes_on_when_both_answer() {
    let mut app = endpoints(EN.0, EN.1);
    let effects = press(&mut app, "<pgdn>");
    let dialled = requests(&effects);
    assert_eq!(dialled.len(), 2);
    for request in dialled {
        let Request::Probe { instance, .. } = request else { panic!("{request:?}") };
        assert!(matches!(instance.account, AccountSource::Inline(_)));
    }
    let run = probes(&effects)[0].1;
    let found = || Reply::Probed { probe: probe("Redis 7.0.15", "10.9.8.7", 1, &[(0, 1)]) };
    reply(&mut app, Tag::Probe { side: Side::Source, run }, found());
    assert_eq!(wizard(&app).step, Step::Endpoints);
    // an answer of an older run changes nothing
    reply(&mut app, Tag::Probe { side: Side::Target, run: run - 1 }, found());
    assert_eq!(wizard(&app).step, Step::Endpoints);
    reply(&mut app, Tag::Probe { side: Side::Target, run }, found());
    assert_eq!(wizard(&app).step, Step::Policy);
}

#[test]
fn only_the_side_that_was_changed_is_dialled_again() {
    let mut app = endpoints_refused(EN.0, EN.1);
    assert_eq!(wizard(&app).slot, Slot::Form(Side::Target, redis_duplex::tui::wizard::FormSlot::Account));
    let effects = press(&mut app, "x<pgdn>");
    assert_eq!(probes(&effects).iter().map(|p| p.0).collect::<Vec<_>>(), [Side::Target]);
}

#[test]
fn faults_are_shown_where_they_are() {
    let mut app = empty(EN.0, EN.1);
    press(&mut app, "n<pgdn>");
    assert_eq!(wizard(&app).slot, Slot::Form(Side::Source, redis_duplex::tui::wizard::FormSlot::Address));
    press(&mut app, "nonsense:x<pgdn>");
    assert!(rows(&draw(&app, 80, 24)).iter().any(|r| r.contains("not host:port")));
    let mut app = list(EN.0, EN.1);
    press(&mut app, "n<up><ctrl-u>orders<pgdn>");
    assert_eq!(wizard(&app).name_fault, Some("fault.name_taken"));
}

#[test]
fn back_keeps_every_answer() {
    let mut app = policy_chosen(EN.0, EN.1);
    press(&mut app, "<pgdn><down><tab><space><tab><tab><space><tab>500<pgup><pgup>");
    assert_eq!(wizard(&app).step, Step::Endpoints);
    press(&mut app, "<pgdn><pgdn><pgdn>");
    let job = wizard(&app).job();
    assert_eq!(job.policy.existing_keys, ExistingKeys::Ignore);
    assert_eq!(job.policy.databases, Databases::Only(vec![0, 3]));
    assert!(!job.policy.two_way && job.policy.forward_flush && job.policy.show_values);
    assert_eq!(job.limits.max_ops_per_second, 500);
    assert_eq!(job.source.id.as_deref(), Some("r-bp1abc"));
}

#[test]
fn a_draft_holds_no_secret_and_is_gone_on_with() {
    let mut app = policy_chosen(EN.0, EN.1);
    let effects = press(&mut app, "<esc>");
    let draft = effects
        .iter()
        .find_map(|e| match e {
            Effect::SaveDraft(draft) => Some(draft.clone()),
            _ => None,
        })
        .expect("a draft");
    let written = toml::to_string(&*draft).expect("toml");
    assert!(!written.contains("Rp829dlwa") && !written.contains("secret"), "{written}");
    assert!(matches!(app.screen, Screen::Jobs));
    press(&mut app, "<ret>");
    let w = wizard(&app);
    assert_eq!((w.existing, w.databases.clone()), (ExistingKeys::Ignore, Some(vec![0, 3])));
    // the password has to be typed again, and the focus is there
    assert_eq!(w.slot, Slot::Form(Side::Source, redis_duplex::tui::wizard::FormSlot::Account));
}

#[test]
fn a_failed_item_blocks_and_warnings_want_to_be_accepted() {
    let mut app = precheck_failed(EN.0, EN.1);
    press(&mut app, "<pgdn>");
    assert_eq!(wizard(&app).step, Step::Precheck);
    let effects = press(&mut app, "f");
    let again = requests(&effects);
    assert!(matches!(again[0], Request::Precheck { only: Some(only), .. } if only.len() == 1));
    let mended = checks(true).into_iter().find(|c| c.id.as_str() == "target_empty").expect("the item");
    report(&mut app, precheck_run(&effects), vec![mended]);
    assert_eq!(wizard(&app).precheck.count(CheckState::Failed), 0);
    press(&mut app, "<pgdn>");
    assert_eq!(wizard(&app).step, Step::Precheck, "warnings are not accepted yet");
    press(&mut app, "W<pgdn>");
    assert_eq!(wizard(&app).step, Step::Launch);
}

#[test]
fn other_answers_need_another_precheck_and_the_same_do_not() {
    let mut app = precheck_failed(EN.0, EN.1);
    assert!(requests(&press(&mut app, "<pgup><pgdn>")).is_empty());
    assert_eq!(requests(&press(&mut app, "<pgup><down><pgdn>")).len(), 1);
}

#[test]
fn the_job_file_is_written_before_the_start_and_without_the_passwords() {
    let mut app = launch(EN.0, EN.1);
    let effects = press(&mut app, "<pgdn>");
    let [Effect::WriteJob { name, toml }] = &effects[..] else { panic!("{effects:?}") };
    assert!(!toml.contains("Rp829dlwa"), "{toml}");
    let effects = update(&mut app, Msg::File(FileMsg::JobWritten { path: "/x".into() }));
    let Some(Request::Start { job, .. }) = requests(&effects).first().copied() else { panic!("{effects:?}") };
    assert_eq!(&job.name, name);
    assert!(matches!(job.source.account, AccountSource::Inline(_)), "the engine gets the account");
    let running = job_named(name, LinkState::Synchronizing);
    reply(&mut app, Tag::Start { job: name.clone() }, Reply::Started { job: Box::new(running) });
    assert!(matches!(&app.screen, Screen::Dashboard(d) if d.job == *name));
}

fn job_named(name: &str, state: LinkState) -> redis_duplex::model::JobStatus {
    job(name, "a", "b", [state, state])
}

#[test]
fn a_file_that_can_not_be_written_starts_nothing() {
    let mut app = launch(EN.0, EN.1);
    press(&mut app, "<pgdn>");
    let effects = update(&mut app, Msg::File(FileMsg::Failed { job: true, text: "no space".into() }));
    assert!(effects.is_empty());
    assert_eq!(wizard(&app).launching, Launching::Failed("no space".into()));
}

#[test]
fn what_could_overwrite_wants_the_name_typed() {
    let mut app = launch_overwriting(EN.0, EN.1);
    assert_eq!(wizard(&app).slot, Slot::Confirm);
    assert!(press(&mut app, "wrong<pgdn>").is_empty());
    let effects = press(&mut app, "<ctrl-u>sync-2026-11-22<pgdn>");
    assert!(matches!(effects[..], [Effect::WriteJob { .. }]), "{effects:?}");

    let mut app = dashboard(EN.0, EN.1);
    assert!(press(&mut app, "xother<ret>").is_empty());
    let effects = press(&mut app, "<ctrl-u>orders<ret>");
    assert!(matches!(requests(&effects)[..], [Request::Stop { name }] if name == "orders"));
}

#[test]
fn read_only_changes_nothing() {
    let mut app = list(EN.0, EN.1);
    app.readonly = true;
    let screens = ["", "<ret>", "<esc><down><down><down>"];
    for keys in screens {
        press(&mut app, keys);
        for key in ["n", "c", "p", "x", "y", "D", "v", "i", "g"] {
            for effect in press(&mut app, key) {
                if let Effect::Send { request, .. } = effect {
                    assert!(request.is_readonly(), "{key}: {request:?}");
                }
            }
            assert!(app.overlays.is_empty(), "{key} opened a dialog");
            assert!(!matches!(app.screen, Screen::Wizard(_)), "{key} opened the wizard");
        }
    }
}

#[test]
fn escape_never_quits_and_q_is_a_letter_in_a_field() {
    let mut app = list(EN.0, EN.1);
    for _ in 0..5 {
        assert!(!press(&mut app, "<esc>").iter().any(|e| matches!(e, Effect::Quit)));
    }
    press(&mut app, "/q");
    assert_eq!(app.jobs.filter.value(), "q");
    assert!(press(&mut app, "<esc>q").iter().any(|e| matches!(e, Effect::Quit)));
    let mut app = endpoints(EN.0, EN.1);
    assert!(press(&mut app, "<ctrl-c>").is_empty());
    let left = press(&mut app, "<ctrl-c>");
    assert!(left.iter().any(|e| matches!(e, Effect::SaveDraft(_))) && left.iter().any(|e| matches!(e, Effect::Quit)));
}

/// On a slow line the two bytes arrive together, and read as Alt with the key.
#[test]
fn a_key_behind_escape_counts_as_both() {
    let mut app = shards(EN.0, EN.1);
    let effects = press(&mut app, "<alt-q>");
    assert!(matches!(&app.screen, Screen::Dashboard(d) if d.pane == redis_duplex::tui::dashboard::Pane::Main));
    assert!(effects.iter().any(|e| matches!(e, Effect::Quit)), "{effects:?}");
    // in a field the words' ends stay where the fingers know them
    let mut app = endpoints(EN.0, EN.1);
    press(&mut app, "<alt-b>");
    assert!(matches!(app.screen, Screen::Wizard(_)));
}

#[test]
fn after_a_reconnect_events_go_on_where_they_were() {
    let mut app = dashboard(EN.0, EN.1);
    update(&mut app, Msg::Engine(EngineMsg::Down { why: "gone".into() }));
    assert!(app.is_stale());
    let effects = update(&mut app, Msg::Engine(EngineMsg::Up { pid: 4343, engine_version: "0.1.0".into() }));
    let asked = requests(&effects);
    assert!(asked.iter().any(|r| matches!(r, Request::Watch { .. })));
    assert!(asked.iter().any(|r| matches!(r, Request::Events { after: 6, follow: true, .. })));
    assert!(asked.iter().any(|r| matches!(r, Request::History { .. })));
    assert!(app.toast.as_ref().is_some_and(|t| t.text.contains("4343")), "{:?}", app.toast);
}

#[test]
fn another_version_is_said_with_what_to_do() {
    let mut app = list(EN.0, EN.1);
    let failure =
        Failure { kind: FailureKind::Version, message: "speaks protocol 2".into(), remedy: "end the engine".into() };
    update(&mut app, Msg::Engine(EngineMsg::Refused(failure)));
    let screen = rows(&draw(&app, 80, 24)).join("\n");
    assert!(screen.contains("speaks protocol 2") && screen.contains("end the engine"), "{screen}");
}

#[test]
fn verify_says_first_and_repair_wants_the_name() {
    let mut app = dashboard(EN.0, EN.1);
    assert!(press(&mut app, "v").is_empty());
    let effects = press(&mut app, "<ret>");
    assert!(matches!(requests(&effects)[..], [Request::Verify { repair: false, .. }]));
    // leaving the dialog ends the comparison
    let effects = press(&mut app, "<esc>");
    assert!(matches!(effects[..], [Effect::Cancel(Tag::Verify { .. })]));
    let mut app = verified(EN.0, EN.1);
    assert!(press(&mut app, "R").is_empty());
    let effects = press(&mut app, "orders<ret>");
    assert!(matches!(requests(&effects)[..], [Request::Verify { repair: true, .. }]));
}

#[test]
fn an_instance_is_added_edited_and_removed() {
    let mut app = list(EN.0, EN.1);
    press(&mut app, "ia");
    let effects = press(&mut app, "r-new<tab>eu<tab>10.3.0.1<pgdn>");
    let [Effect::SaveInventory(saved)] = &effects[..] else { panic!("{effects:?}") };
    let new = saved.instances.iter().find(|s| s.id == "r-new").expect("saved");
    assert_eq!(new.address, "10.3.0.1:6379");
    let effects = press(&mut app, "D<ret>");
    let [Effect::SaveInventory(saved)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(saved.instances.len(), 3);
    assert!(matches!(app.overlays.last(), Some(Overlay::Instances { .. })));
}

#[test]
fn the_language_changes_at_once_and_is_kept() {
    let mut app = list(EN.0, EN.1);
    let effects = press(&mut app, "L");
    assert!(matches!(&effects[..], [Effect::SaveSettings { lang, .. }] if lang == "zh-CN"));
    assert!(rows(&draw(&app, 80, 24))[0].contains("同步作业列表"));
    // the palette finds commands by their English words too
    press(&mut app, ":language<ret>");
    assert_eq!(app.lang, Lang::En);
}

#[test]
fn every_key_of_the_footer_is_in_the_help() {
    for context in [Context::Jobs, Context::Dashboard, Context::Precheck, Context::Wizard, Context::Global] {
        for b in BINDINGS.iter().filter(|b| b.context == context && b.footer) {
            assert!(b.listed, "{b:?}");
        }
    }
}

#[test]
fn each_kind_of_instance_is_asked_what_the_job_file_needs() {
    let app = endpoints_kinds(EN.0, EN.1);
    let job = wizard(&app).job();
    let source = &job.source;
    assert_eq!(source.addresses, ["10.0.0.1:26379", "10.0.0.2:26379", "10.0.0.3:26379"]);
    assert_eq!((source.topology, source.read_from), (Topology::Sentinel, ReadFrom::Replica));
    assert_eq!(source.master_name.as_deref(), Some("mymaster"));
    let inline = |account: &AccountSource| match account {
        AccountSource::Inline(inline) => (inline.expose().to_owned(), inline.is_unkept()),
        other => panic!("{other:?}"),
    };
    // the first choice behind "none needed" is "typed"
    assert_eq!(inline(&source.sentinel_account), ("watch:hidden".into(), false));
    assert_eq!(inline(&source.account), ("admin:Rp829dlwa".into(), false));
    let tls = source.tls.as_ref().expect("TLS");
    assert_eq!(tls.ca_file.as_deref(), Some("/etc/ssl/ca.pem"));
    assert_eq!(
        (tls.cert_file.as_deref(), tls.key_file.as_deref()),
        (Some("/etc/ssl/client.pem"), Some("/etc/ssl/client.key"))
    );
    assert_eq!(tls.server_name.as_deref(), Some("redis.example"));
    assert_eq!(job.target.topology, Topology::Cluster);
    assert_eq!(job.target.addresses, ["10.1.0.1:7000", "10.1.0.2:7000"]);
    // what the wizard writes is a job file, and says the same
    let text = file::to_toml(&job, true);
    assert_eq!(file::parse(&text, "t").expect("a job file"), job, "{text}");
    assert!(!file::to_toml(&job, false).contains("hidden"));
    // and a draft brings all of it back but the accounts
    let again = Wizard::resume(&wizard(&app).draft());
    let mut without = job.clone();
    (without.source.account, without.source.sentinel_account) = (AccountSource::None, AccountSource::None);
    assert_eq!(again.job(), without);
}

#[test]
fn read_write_splitting_is_a_standalone_instance_read_from_a_replica() {
    let mut app = empty(EN.0, EN.1);
    press(&mut app, "n<tab>10.0.0.1<tab><right><right>");
    let job = wizard(&app).job();
    assert_eq!((job.source.topology, job.source.read_from), (Topology::Standalone, ReadFrom::Replica));
    press(&mut app, "<left>");
    assert_eq!(wizard(&app).job().source.read_from, ReadFrom::Master);
}

#[test]
fn faults_of_the_new_answers_are_shown_where_they_are() {
    use redis_duplex::tui::wizard::FormSlot as F;
    let fault = |keys: &str| {
        let mut app = empty(EN.0, EN.1);
        press(&mut app, keys);
        press(&mut app, "<pgdn>");
        wizard(&app).form(Side::Source).fault
    };
    let standalone = "n<tab>10.0.0.1, 10.0.0.2<tab><right>";
    assert_eq!(fault(standalone).map(|f| f.0), Some(F::Address));
    let sentinel = "n<tab>10.0.0.1<tab><left><left>";
    assert_eq!(fault(sentinel).map(|f| f.0), Some(F::Master));
    // the sentinels' account from a file that is not named
    assert_eq!(fault(&format!("{sentinel}<tab>m<tab><left><left>")).map(|f| f.0), Some(F::SentinelPlace));
    // a certificate without its key
    assert_eq!(fault("n<tab>10.0.0.1<tab><tab><tab><tab><right><tab>/c.pem").map(|f| f.0), Some(F::Key));
}

#[test]
fn a_running_one_way_job_gets_its_reverse_link() {
    let mut app = reverse_asked(EN.0, EN.1);
    let screen = rows(&draw(&app, 80, 24)).join(" ");
    assert!(screen.contains("sides swapped") && screen.contains("Until then the forward link"), "{screen}");
    assert!(matches!(requests(&press(&mut app, "<ret>"))[..], [Request::JobFile { .. }]));

    let mut app = reverse_launch(EN.0, EN.1);
    let w = wizard(&app);
    assert_eq!((w.purpose, w.existing, w.two_way), (Purpose::Reverse, ExistingKeys::Merge, true));
    // the target holds keys that could be overwritten: the name is typed; nothing was stopped until now
    assert!(press(&mut app, "<pgdn>").is_empty());
    let effects = press(&mut app, "profiles<pgdn>");
    assert!(matches!(requests(&effects)[..], [Request::Stop { name }] if name == "profiles"), "{effects:?}");
    let stop = Tag::Act { act: Act::Stop, job: "profiles".into() };
    let effects = reply(&mut app, stop, Reply::Done);
    assert!(
        matches!(&effects[..], [Effect::WriteJob { toml, .. }] if !toml.contains("two_way        = false")),
        "{effects:?}"
    );
    let effects = update(&mut app, Msg::File(FileMsg::JobWritten { path: "/x".into() }));
    let Some(Request::Start { job, .. }) = requests(&effects).first().copied() else { panic!("{effects:?}") };
    assert!(job.policy.two_way && job.policy.existing_keys == ExistingKeys::Merge);
    assert_eq!(job.source.account, AccountSource::Inline(Inline::new("")), "the engine knows it");
    // a start that fails says that nothing runs now
    let error = Failure { kind: FailureKind::Failed, message: "no space".into(), remedy: "make some".into() };
    reply(&mut app, Tag::Start { job: "profiles".into() }, Reply::Error { error });
    let screen = rows(&draw(&app, 80, 30)).join(" ");
    assert!(screen.contains("no space") && screen.contains("no link runs now"), "{screen}");
    // and the next try starts at once
    let effects = press(&mut app, "<pgdn>");
    assert!(matches!(effects[..], [Effect::WriteJob { .. }]), "{effects:?}");
}

#[test]
fn a_job_that_can_not_be_stopped_stays_one_way() {
    let mut app = reverse_launch(EN.0, EN.1);
    press(&mut app, "<pgdn>profiles<pgdn>");
    let error = Failure { kind: FailureKind::Failed, message: "it is away".into(), remedy: "look".into() };
    let effects = reply(&mut app, Tag::Act { act: Act::Stop, job: "profiles".into() }, Reply::Error { error });
    assert!(effects.is_empty());
    assert!(matches!(&wizard(&app).launching, Launching::Failed(why) if why.contains("it is away")));
    assert!(!wizard(&app).stopped);
}

#[test]
fn the_precheck_of_a_running_job_leads_back_to_it() {
    let mut app = dashboard(EN.0, EN.1);
    assert!(matches!(requests(&press(&mut app, "t"))[..], [Request::JobFile { .. }]));
    let mut job = told_job("orders", false);
    job.policy.two_way = true;
    let tag = Tag::JobFile { job: "orders".into(), wanted: Wanted::Precheck };
    let effects = reply(&mut app, tag, Reply::Job { job: Box::new(job) });
    report(&mut app, precheck_run(&effects), checks(true));
    let effects = press(&mut app, "W<pgdn>");
    assert!(!requests(&effects).iter().any(|r| matches!(r, Request::Start { .. } | Request::Stop { .. })));
    assert!(matches!(&app.screen, Screen::Dashboard(d) if d.job == "orders"));
}

#[test]
fn an_account_that_is_kept_nowhere_is_asked_for_after_a_restart() {
    let mut app = account_missing(EN.0, EN.1);
    for lang in Lang::ALL {
        app.lang = lang;
        let screen = rows(&draw(&app, 120, 24)).join(" ");
        assert!(screen.contains(if lang == Lang::En { "kept nowhere" } else { "需要重新输入" }), "{screen}");
    }
    assert!(matches!(requests(&press(&mut app, "p"))[..], [Request::JobFile { .. }]), "resuming asks");
    let mut app = account_asked(EN.0, EN.1);
    // one of two is missing
    assert!(press(&mut app, "<ret>").is_empty());
    let effects = press(&mut app, "other:secret<ret>");
    let [Request::Start { job, discard_previous: false }] = requests(&effects)[..] else { panic!("{effects:?}") };
    for (instance, text) in [(&job.source, "admin:Rp829dlwa"), (&job.target, "other:secret")] {
        assert_eq!(instance.account, AccountSource::Inline(Inline::unkept(text)));
    }
    assert!(app.overlays.is_empty());
    // one who only watches is not asked
    let mut app = account_missing(EN.0, EN.1);
    app.readonly = true;
    assert!(requests(&press(&mut app, "<ret>")).iter().all(|r| !matches!(r, Request::JobFile { .. })));
}

fn click(app: &mut App, column: u16, row: u16) -> Vec<Effect> {
    let kind = MouseEventKind::Down(MouseButton::Left);
    update(app, Msg::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }))
}

/// Clicks on the first place of the screen where these words stand.
#[track_caller]
fn click_on(app: &mut App, words: &str) -> Vec<Effect> {
    let (columns, rows_) = app.size;
    let buf = draw(app, columns, rows_);
    for y in 0..rows_ {
        let row: Vec<String> = (0..columns).map(|x| buf[(x, y)].symbol().to_owned()).collect();
        if let Some(at) = row.concat().find(words) {
            let x = row.iter().scan(0, |sum, s| (*sum <= at).then(|| *sum += s.len())).count() - 1;
            return click(app, x as u16 + 1, y);
        }
    }
    panic!("no {words:?} on\n{}", rows(&draw(app, columns, rows_)).join("\n"));
}

#[test]
fn rows_tabs_and_buttons_can_be_clicked_on() {
    let mut app = list(EN.0, EN.1);
    click_on(&mut app, "carts");
    assert_eq!(app.jobs.cursor.at, 2);
    click_on(&mut app, "orders");
    click_on(&mut app, "orders");
    assert!(matches!(app.screen, Screen::Dashboard(_)), "a second click opens");
    // hints of keys are buttons
    click_on(&mut app, "conflicts");
    let mut app = dashboard(EN.0, EN.1);
    click_on(&mut app, "pause");
    assert!(matches!(app.overlays.last(), Some(Overlay::Confirm(_))));
    click_on(&mut app, "cancel");
    assert!(app.overlays.is_empty());
    click_on(&mut app, "pause");
    let effects = click_on(&mut app, "do it");
    assert!(matches!(requests(&effects)[..], [Request::Pause { .. }]), "{effects:?}");
    // what lies under a dialog is out of reach
    click_on(&mut app, "? help");
    let before = app.overlays.len();
    click(&mut app, 1, 5);
    assert_eq!(app.overlays.len(), before);
}

#[test]
fn the_wizard_can_be_gone_through_with_the_mouse() {
    use redis_duplex::tui::wizard::FormSlot as F;
    let mut app = empty(EN.0, EN.1);
    load(&mut app, vec![]);
    click_on(&mut app, "Configure a link");
    click_on(&mut app, "typed below");
    click_on(&mut app, "r-bp1abc");
    assert_eq!(wizard(&app).form(Side::Source).chosen.as_deref(), Some("r-bp1abc"));
    assert_eq!(wizard(&app).slot, Slot::Form(Side::Source, F::Account));
    press(&mut app, "admin:x");
    click_on(&mut app, "host:6379");
    assert_eq!(wizard(&app).slot, Slot::Form(Side::Target, F::Address));
    press(&mut app, "10.1.0.1");
    let effects = click_on(&mut app, "Authorize and continue");
    for (side, run) in probes(&effects) {
        let found = probe("Redis 7.0.15", "10.9.8.7", 400, &[(0, 5), (3, 7)]);
        reply(&mut app, Tag::Probe { side, run }, Reply::Probed { probe: found });
    }
    click_on(&mut app, "Merge both ways");
    assert_eq!(wizard(&app).existing, ExistingKeys::Merge);
    click_on(&mut app, "db3");
    click_on(&mut app, "db3");
    assert_eq!(wizard(&app).databases, Some(vec![0]));
    click_on(&mut app, "Continue");
    click_on(&mut app, "Forward only");
    assert!(!wizard(&app).two_way);
    click_on(&mut app, "Forward FLUSHDB");
    assert!(wizard(&app).forward_flush);
    // a step that lies behind is a tab
    click_on(&mut app, "Source and target");
    assert_eq!(wizard(&app).step, Step::Endpoints);
    click_on(&mut app, " EN ");
    assert_eq!(app.lang, Lang::ZhCn);
}

/// Every part that can be clicked on lies on the screen, and no click breaks anything.
#[test]
fn every_click_is_harmless() {
    for (name, scene) in SCENES {
        for (columns, rows_) in [(60, 15), (80, 24), (120, 40)] {
            let area = Rect::new(0, 0, columns, rows_);
            let zones = view::zones(&scene(EN.0, EN.1), area);
            assert!(!zones.all().is_empty(), "{name}: nothing to click on");
            for (zone, what) in zones.all() {
                assert_eq!(zone.intersection(area), *zone, "{name}: {what:?}");
                if matches!(what, Click::Do(Action::Quit)) || zone.is_empty() {
                    continue;
                }
                let mut app = scene(EN.0, EN.1);
                app.size = (columns, rows_);
                for _ in 0..2 {
                    click(&mut app, zone.x, zone.y);
                    draw(&app, columns, rows_);
                }
            }
        }
    }
}

#[test]
fn what_keeps_us_from_a_server_is_said_in_chinese_with_what_to_do() {
    let address = || "10.0.0.1:6379".to_owned();
    let seen = || "WRONGPASS invalid username-password pair".to_owned();
    for error in [
        NetError::Refused { address: address() },
        NetError::Dns { address: address(), seen: "no such host".into() },
        NetError::TimedOut { address: address(), doing: "connect", waited: std::time::Duration::from_secs(5) },
        NetError::Closed { address: address(), doing: "log in" },
        NetError::TlsUnknownAuthority { address: address() },
        NetError::TlsClientCertificate { address: address(), seen: "x".into() },
        NetError::WrongPassword { address: address(), seen: seen() },
        NetError::PasswordNeeded { address: address() },
        NetError::ProtectedMode { address: address() },
        NetError::NoMaster { name: "mymaster".into(), seen: "null".into() },
    ] {
        let words = spoken::sentence(&error.to_string(), Lang::ZhCn);
        assert!(words.contains('；') && !words.contains(['{', '}']), "{error}: {words}");
        let (what, advice) = error.parts();
        for part in [what, advice] {
            let words = spoken::sentence(&part, Lang::ZhCn);
            assert!(words.chars().any(|c| c > '\u{3fff}'), "{part}: {words}");
        }
        assert_eq!(spoken::sentence(&error.to_string(), Lang::En), error.to_string());
    }
}

/// The time beside a state is that of the state, not that of the job.
#[test]
fn the_dashboard_says_since_when_it_is_so() {
    let mut app = dashboard(EN.0, EN.1);
    assert!(rows(&draw(&app, 80, 24))[0].contains("synchronizing both ways   2d 04:11"));
    let told = event(7, 12, None, Severity::Warning, EventKind::StateChanged, "reconnecting: it is away");
    reply(&mut app, Tag::Events, Reply::Event { event: told });
    let mut away = orders();
    away.state = LinkState::Reconnecting;
    for link in &mut away.links {
        link.state = LinkState::Reconnecting;
    }
    status(&mut app, vec![away.clone()]);
    assert!(rows(&draw(&app, 80, 24))[0].contains("reconnecting   12 s"), "{}", rows(&draw(&app, 80, 24))[0]);
    // an event of another state says nothing, and neither does the uptime
    away.state = LinkState::Lagging;
    status(&mut app, vec![away]);
    let head = rows(&draw(&app, 80, 24))[0].clone();
    assert!(head.contains("lagging") && !head.contains("12 s") && !head.contains("2d"), "{head}");
}

#[test]
fn what_is_wrong_with_a_name_is_said_in_full() {
    for lang in Lang::ALL {
        let mut app = empty(lang, EN.1);
        press(&mut app, "n<up><ctrl-u>not a name<pgdn>");
        let row = rows(&draw(&app, 80, 24))[4].clone();
        assert!(row.contains(lang.t("fault.name")), "{row}");
    }
}

/// In whatever state a job is, each key that is about it does something or says what to do instead.
#[test]
fn no_key_about_a_job_is_without_an_answer() {
    let alert = account_missing(EN.0, EN.1).job("orders").expect("the job").alerts.clone();
    let mut stories: Vec<(String, Vec<redis_duplex::model::JobStatus>, bool)> = Vec::new();
    for state in LinkState::ALL {
        stories.push((state.as_str().into(), vec![job_named("orders", state)], false));
        let mut lacking = job_named("orders", state);
        lacking.alerts = alert.clone();
        stories.push((format!("{} without its account", state.as_str()), vec![lacking], false));
    }
    stories.push(("a draft".into(), vec![], true));
    stories.push(("no job".into(), vec![], false));
    for (story, jobs, with_draft) in stories {
        for opened in [false, true] {
            for key in ["<ret>", "c", "p", "x", "y", "D", "v", "t"] {
                // the list knows no verify and no precheck, the dashboard neither copy nor delete
                let listed = |contexts: &[Context]| {
                    let typed = redis_duplex::tui::keymap::keys(key)[0];
                    redis_duplex::tui::keymap::lookup(contexts, &typed, false).is_some_and(|b| b.listed)
                };
                let mut app = empty(EN.0, EN.1);
                load(&mut app, if with_draft { vec![draft()] } else { vec![] });
                status(&mut app, jobs.clone());
                if opened {
                    if jobs.is_empty() {
                        continue;
                    }
                    press(&mut app, "<ret>");
                    app.overlays.clear();
                }
                if !listed(&app.screen_contexts()[..1]) {
                    continue;
                }
                app.toast = None;
                let before = format!("{:?}", app.screen);
                let effects = press(&mut app, key);
                let answered = !app.overlays.is_empty()
                    || app.toast.is_some()
                    || !effects.is_empty()
                    || format!("{:?}", app.screen) != before;
                assert!(answered, "{story}, dashboard {opened}: {key} is answered by nothing");
            }
        }
    }
}

#[test]
fn what_has_failed_is_started_again_and_its_precheck_shown_where_that_refuses() {
    for state in [LinkState::Failed, LinkState::PrecheckFailed, LinkState::NotConfigured] {
        let mut app = empty(EN.0, EN.1);
        status(&mut app, vec![job_named("orders", state)]);
        assert!(rows(&draw(&app, 80, 24))[23].contains("p start again"), "{state:?}");
        assert!(press(&mut app, "p").is_empty());
        let effects = press(&mut app, "<ret>");
        assert!(matches!(requests(&effects)[..], [Request::StartKnown { name }] if name == "orders"), "{effects:?}");
        let retry = Tag::Retry { job: "orders".into() };
        let report =
            redis_duplex::model::CheckReport { version: 1, job: "orders".into(), passed: false, items: checks(false) };
        let effects = reply(&mut app, retry.clone(), Reply::Report { report });
        assert!(matches!(requests(&effects)[..], [Request::JobFile { .. }]), "{effects:?}");
        assert!(app.toast.as_ref().is_some_and(|t| t.text.contains("precheck failed")), "{:?}", app.toast);
        // its end says nothing that hides this
        let error = Failure { kind: FailureKind::Precheck, message: "x".into(), remedy: String::new() };
        reply(&mut app, retry.clone(), Reply::Error { error });
        assert!(app.toast.as_ref().is_some_and(|t| t.text.contains("precheck failed")), "{:?}", app.toast);
        // and any other end is said
        let error = Failure { kind: FailureKind::Failed, message: "it is away".into(), remedy: "look".into() };
        reply(&mut app, retry, Reply::Error { error });
        assert!(app.toast.as_ref().is_some_and(|t| t.text.contains("it is away")), "{:?}", app.toast);
    }
    // an ended job has no position to go on from
    let mut app = empty(EN.0, EN.1);
    status(&mut app, vec![job_named("orders", LinkState::Ended)]);
    assert!(press(&mut app, "p").is_empty() && app.overlays.is_empty());
    assert!(app.toast.as_ref().is_some_and(|t| t.text.contains("c configures")), "{:?}", app.toast);
}

#[test]
fn a_failed_job_is_deleted_as_it_is_only_by_its_typed_name() {
    let mut app = empty(EN.0, EN.1);
    status(&mut app, vec![job_named("orders", LinkState::Failed)]);
    press(&mut app, "D");
    let screen = rows(&draw(&app, 80, 24)).join(" ");
    assert!(screen.contains("gone for good"), "{screen}");
    assert!(press(&mut app, "<ret>").is_empty());
    let effects = press(&mut app, "orders<ret>");
    assert!(matches!(requests(&effects)[..], [Request::Forget { abandon: true, .. }]), "{effects:?}");
    // another copy is offered for one whose position is lost
    press(&mut app, "c");
    let tag = Tag::JobFile { job: "orders".into(), wanted: Wanted::Configure(Direction::Forward) };
    reply(&mut app, tag, Reply::Job { job: Box::new(told_job("orders", false)) });
    assert!(wizard(&app).asks_to_discard());
}

#[test]
fn an_account_that_is_lost_is_not_said_to_be_held() {
    let mut app = account_missing(EN.0, EN.1);
    let tag = Tag::JobFile { job: "orders".into(), wanted: Wanted::Configure(Direction::Forward) };
    reply(&mut app, tag, Reply::Job { job: Box::new(told_job("orders", true)) });
    assert!(!wizard(&app).form(Side::Source).held);
    assert_eq!(wizard(&app).slot, Slot::Form(Side::Source, redis_duplex::tui::wizard::FormSlot::Account));
}

/// Both links of a list entry, and the direction that is asked for, are the job's.
#[test]
fn configure_of_a_two_way_job_says_the_way() {
    let mut app = list(EN.0, EN.1);
    assert!(press(&mut app, "c").is_empty());
    assert!(app.toast.as_ref().is_some_and(|t| t.text.contains("stop it")), "{:?}", app.toast);
    press(&mut app, "<down><down>");
    let effects = press(&mut app, "c");
    let tag = Tag::JobFile { job: "carts".into(), wanted: Wanted::Configure(Direction::Forward) };
    assert!(matches!(&effects[..], [Effect::Send { tag: sent, .. }] if *sent == tag), "{effects:?}");
}
