"""Settings of ads that cannot be meant stop the start, with name, value and what is right."""

import json

import numpy as np
import pytest

from streams.configuration import SettingsError, load_settings, show


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CURRENCY", "eur", "ads.currency = 'eur'"),
        ("CURRENCY", "EUR", "currency EUR is none of currencies, USD"),
        ("CURRENCIES", '["EUR"]', "'EUR' is not a rate such as USD=1083412"),
        ("CURRENCIES", '["USD=0", "EUR=1000000"]', "currencies.USD = 0"),
        ("CURRENCIES", '["USD=2"]', "none is 1000000"),
        ("FLOORS", '["home=3"]', "floor home: 1 values for 2 fields"),
        ("FLOORS", '["home;*=-3"]', "is not a floor such as home;*=300000"),
        ("FLOOR_FIELDS", '["age"]', "Input should be 'tagid'"),
        ("AT", "third_price", "allowed: first_price, second_price"),
        ("RESERVATION_S", "1", "allowed: 5 to 86400"),
        ("BILLING_WINDOW_S", "100", "billing_window_s 100 is less than reservation_s, 900"),
        ("CHUNK_S", "200", "lease_s 60 is less than twice chunk_s, 200"),
        ("ALLOW_SENSITIVE", '["Alcohol"]', "'Alcohol' is not a kind such as alcohol"),
        ("AD_LOAD_MAX", ".2", "ads.ad_load_max was removed: each surface that brings ads says its own"),
        ("SURFACES__HOME__FIRST_SLOT", "2", "ads.surfaces.home.show_rate is not set; allowed: above 0 to 1"),
        ("SURFACES__HOME__SHOW_RATE", "0", "ads.surfaces.home.show_rate = '0'"),
        ("SURFACES__HOME__SHOWRATE", "1", "did you mean ads.surfaces.NAME.show_rate?"),
        ("EXPLORATION", "3.1", "allowed: 0 to 3"),
    ],
)
def test_a_wrong_value_stops_the_start(name: str, value: str, said: str) -> None:
    environ = {f"MARQUEE_ADS__{name}": value}
    with pytest.raises(SettingsError) as refused:
        load_settings(environ=environ)
    assert said in str(refused.value)
    assert "ads" in str(refused.value)


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ({"AD_LOAD_MAX": "25"}, "ads.surfaces.home.ad_load_max = '25': .*; allowed: 0 to 1"),
        ({"UNFILLED": "hide"}, "ads.surfaces.home.unfilled = 'hide': .*; allowed: organic, collapse"),
        ({"FORMATS": '["card"]'}, "ads.surfaces.home.formats = 'card'"),
        ({"AD_LOAD_MAX": ".04"}, "ads.surfaces.home: ad_load_max 0.04 and first_slot 2 leave no place .* slates of 20"),
        ({"FIRST_SLOT": "21"}, "first_slot 21 leave no place for an ad on slates of 20"),
    ],
)
def test_a_surface_that_opts_in_with_what_cannot_be_meant_stops_the_start(said: dict[str, str], refused: str) -> None:
    environ = {f"MARQUEE_ADS__SURFACES__HOME__{name}": value for name, value in ({"SHOW_RATE": ".3"} | said).items()}
    with pytest.raises(SettingsError, match=refused):
        load_settings(environ=environ)


def test_no_surface_brings_ads_unless_it_says_so() -> None:
    assert load_settings(environ={}).ads.surfaces == {}
    opted = load_settings(environ={"MARQUEE_ADS__SURFACES__HOME__SHOW_RATE": ".3"}).ads.surfaces
    assert (list(opted), opted["home"].show_rate, opted["home"].unfilled) == (["home"], 0.3, "organic")


def test_money_is_told_in_a_table_with_a_version() -> None:
    environ = {
        "MARQUEE_ADS__CURRENCY": "EUR",
        "MARQUEE_ADS__CURRENCIES": json.dumps(["EUR=1000000", "USD=1083412"]),
        "MARQUEE_ADS__CURRENCIES_VERSION": "2026-11-27",
        "MARQUEE_ADS__FLOORS": json.dumps(["home;*=300000", "*;AT=200001"]),
    }
    ads = load_settings(environ=environ).ads
    assert (ads.rates().version, ads.rates().micros) == ("2026-11-27", {"EUR": 1_000_000, "USD": 1_083_412})
    floors = ads.floor_table()
    codes = floors.codes([("home", "AT"), ("feed", "AT"), ("feed", "DE")])
    assert np.array_equal(floors.of_requests(codes), [300, 201, 0])


def test_the_key_of_people_is_not_shown() -> None:
    settings = load_settings(environ={"MARQUEE_ADS__SECRET": "not to be seen"})
    assert settings.ads.secret is not None
    assert settings.ads.secret.get_secret_value() == "not to be seen"
    assert "not to be seen" not in json.dumps(show(settings)) + repr(settings)
