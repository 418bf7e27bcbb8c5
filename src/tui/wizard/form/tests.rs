use super::*;

fn form(address: &str) -> Form {
    Form { address: Field::new(address), ..Form::default() }
}

#[test]
fn addresses_get_a_port_and_are_checked() {
    assert_eq!(form("10.0.0.1, 10.0.0.2:7000").addresses(), ["10.0.0.1:6379", "10.0.0.2:7000"]);
    assert_eq!(form("[::1]").addresses(), ["[::1]:6379"]);
    assert!(form("[::1]:6380").check().is_none());
    for bad in ["", "a:b", "a:0", "::1", "redis://x:1", "a:70000"] {
        assert_eq!(form(bad).check().map(|(s, _)| s), Some(FormSlot::Address), "{bad}");
    }
}

#[test]
fn a_saved_form_holds_no_secret() {
    let mut form = form("h:1");
    form.account.set("admin:s3cret");
    let saved = toml::to_string(&form.to_saved()).expect("toml");
    assert!(!saved.contains("s3cret"), "{saved}");
    assert!(matches!(form.instance().account, AccountSource::Inline(_)));
    assert!(!format!("{form:?}").contains("s3cret"));
}

#[test]
fn every_row_is_as_wide_as_asked() {
    let theme = Theme::new(crate::tui::theme::ThemeName::Mono);
    let mut form = form("a very long address that does not fit anywhere");
    form.topology = Topology::Sentinel;
    form.tls = TlsChoice::OwnCa;
    for lang in Lang::ALL {
        for slot in form.slots(false) {
            for columns in [26, 38, 60] {
                for line in form.draw(Some(slot), false, true, columns, lang, &theme).lines {
                    assert_eq!(text::line_width(&line), columns, "{line:?}");
                }
            }
        }
    }
}

#[test]
fn what_is_behind_a_proxy_stays_with_it() {
    let mut form = form("proxy:6379");
    form.set_kind(Kind::Plain(Topology::Proxy));
    assert!(form.slots(false).contains(&FormSlot::Shards));
    form.shards.set("10.0.0.1:7000, 10.0.0.2");
    assert_eq!(form.check(), None);
    let instance = form.instance();
    assert_eq!(instance.shards, ["10.0.0.1:7000", "10.0.0.2:6379"]);
    assert_eq!(Form::from_instance(&instance).instance().shards, instance.shards);
    assert_eq!(Form::from_saved(&form.to_saved()).instance().shards, instance.shards);
    form.shards.set("10.0.0.1:no");
    assert_eq!(form.check(), Some((FormSlot::Shards, "fault.address")));
    form.set_kind(Kind::Plain(Topology::Cluster));
    assert!(form.instance().shards.is_empty() && form.check().is_none());
}
