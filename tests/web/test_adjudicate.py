import re

from .site import on_both


def disagree(signed_in):
    for role, reverse in (("lead", False), ("labeler", True)):
        browser = signed_in[role]
        for _ in range(2):
            item = browser.next()
            by_text = sorted(item["answers"], key=lambda x: item["answers"][x], reverse=reverse)
            body = {"id": f"{role}-{item['task']:06}", "kind": "rank", "ranking": " > ".join(by_text)}
            browser.send(f"/t/{item['task']}/answer", body)


@on_both
def test_the_lead_orders_blind_then_sees_then_settles(signed_in):
    disagree(signed_in)
    admin = signed_in["admin"]
    listed = admin.get("/projects/round-1/adjudicate").text
    path = listed.split('class="primary" href="')[1].split('"')[0]
    assert listed.count("-1.00") == 2
    first = admin.get(path).text
    assert "Your order first" in first and "consensus" not in first and ">P1<" not in first and "Labeler" not in first
    assert admin.form(path + "/settle", ranking="A > B", cause="slip").status_code == 422  # not before the own order
    assert admin.form(path + "/order", ranking="A > Z").status_code == 422
    assert admin.form(path + "/order", rank_A="1", rank_B="1", rank_C="2").status_code == 303
    seen = admin.get(path).text
    assert "A = B &gt; C" in seen and ">P2<" in seen and ">Labeler<" not in seen
    assert admin.form(path + "/settle", ranking="A > B > C", cause="guideline").status_code == 422
    assert admin.form(path + "/settle", ranking="A > B > C", cause="slip", note="Hurried.").status_code == 303
    done = admin.get(path).text
    assert "Settled: A &gt; B &gt; C" in done and ">Labeler<" in done and "Hurried." in done
    assert "Settled: 1 slip." in admin.get("/projects/round-1").text
    assert admin.get("/projects/round-1/adjudicate").text.count("-1.00") == 1


def test_only_ranked_items_of_the_project_can_be_settled(signed_in):
    lead = signed_in["lead"]
    for path in ("/projects/texts/adjudicate/1", "/projects/round-1/adjudicate/9999"):
        assert lead.get(path).status_code == 409
        assert lead.form(path + "/order", ranking="A > B").status_code == 409


def test_an_order_that_nobody_gave_may_settle_and_the_next_item_follows(signed_in):
    disagree(signed_in)
    admin = signed_in["admin"]
    base = "/projects/round-1/adjudicate"
    first, second = re.findall(rf'<td dir="auto"><a href="({base}/\d+)"', admin.get(base).text)
    admin.form(f"{first}/order", ranking="A > B")
    odd = admin.form(f"{first}/settle", ranking="A > B", other="D > Z", cause="slip", note="kept")
    assert odd.status_code == 422 and 'value="D &gt; Z"' in odd.text and ">kept</textarea>" in odd.text
    assert 'value="slip" required checked' in odd.text
    assert admin.form(f"{first}/settle", ranking="A > B", other="D > C > A", cause="slip").status_code == 303
    page = admin.get(first).text
    assert "Settled: D &gt; C &gt; A" in page and f'href="{second}">Next item' in page
    admin.form(f"{second}/order", ranking="A > B")
    admin.form(f"{second}/settle", ranking="A > B", cause="taste")
    assert "Nothing else to settle." in admin.get(second).text
