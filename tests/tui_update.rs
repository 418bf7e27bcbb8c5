//! What the console decides, typed as keys: no terminal, no engine.

mod tui_scenes;

use redis_duplex::{
    control::protocol::{Failure, FailureKind, Reply, Request},
    model::{AccountSource, CheckState, Databases, ExistingKeys, LinkState, Side},
    tui::{
        app::{App, Screen},
        effect::Effect,
        i18n::Lang,
        keymap::{BINDINGS, Context},
        msg::{EngineMsg, FileMsg, Msg, Tag},
        overlay::Overlay,
        theme::ThemeName,
        update::update,
        wizard::{Launching, Slot, Step, Wizard},
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
    press(&mut app, "<pgdn><down><tab><space><tab><tab>500<pgup><pgup>");
    assert_eq!(wizard(&app).step, Step::Endpoints);
    press(&mut app, "<pgdn><pgdn><pgdn>");
    let job = wizard(&app).job();
    assert_eq!(job.policy.existing_keys, ExistingKeys::Ignore);
    assert_eq!(job.policy.databases, Databases::Only(vec![0, 3]));
    assert!(!job.policy.two_way && job.policy.forward_flush);
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
