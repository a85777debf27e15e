"""Reward-model losses: the paper's equation by hand and in slow loops, ties, weights, and the other likelihoods."""

import math
from itertools import combinations, permutations

import pytest
import torch
from torch.nn.functional import cross_entropy

from tutelage.algorithms.ranking import (
    davidson_log_probabilities,
    davidson_loss,
    ordered_pairs,
    pair_accuracy,
    pairwise_loss,
    pairwise_ranking_loss,
    paper_pairs,
    pick_best_loss,
    plackett_luce_log_likelihood,
    rao_kupper_log_probabilities,
    rao_kupper_loss,
    tied_pairs,
    untied_pairs,
)

from .checks import close, f64, holds_and_rejects, ints, numerical_gradient, offsets_of

SCORES, RANKS, ONE_PROMPT = f64(2, 1, 0.5, -1), ints(1, 2, 3, 4), ints(0, 4)
TIED = ints(1, 2, 2, 3)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def prompts_of(offsets):
    return [range(a, b) for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def loss_in_slow_loops(scores, ranks, offsets, win, tie=None):
    """Sum over pairs of -log P, over C(K, 2) of the ranked completions; a tie without a model teaches nothing."""
    losses = []
    for prompt in prompts_of(offsets):
        ranked = [i for i in prompt if ranks[i] > 0]
        total, pairs = 0.0, 0
        for i, j in combinations(ranked, 2):
            pairs += 1
            d = float(scores[i] - scores[j])
            if ranks[i] == ranks[j]:
                total -= math.log(tie(d)) if tie else 0.0
            else:
                total -= math.log(win(d if ranks[i] < ranks[j] else -d))
        losses.append(total / max(pairs, 1))
    return f64(*losses)


def random_rankings(seed):
    """Prompts of 0 to 6 completions with ties and unranked ones (0 and -1)."""
    generator = torch.Generator().manual_seed(seed)
    offsets = offsets_of(torch.randint(0, 7, (8,), generator=generator))
    count = int(offsets[-1])
    return (
        torch.randn(count, generator=generator, dtype=torch.float64),
        torch.randint(-1, 5, (count,), generator=generator),
        offsets,
    )


def all_rank_orders_reversed(scores, ranks, offsets, **options):
    return pairwise_ranking_loss(-scores, ranks, offsets, **options)


def no_normalizer(scores, ranks, offsets, **options):
    return pairwise_ranking_loss(scores, ranks, offsets, **options) * paper_pairs(ranks, offsets)


def divided_by_k(scores, ranks, offsets, **options):
    return no_normalizer(scores, ranks, offsets, **options) / offsets.diff().clamp(min=1)


def every_prompt_compared_with_every_other(scores, ranks, offsets, **options):
    whole = ordered_pairs(ranks, offsets[[0, -1]])
    total = pairwise_loss(scores, whole[0], whole[1]).sum()
    return (total / paper_pairs(ranks, offsets).sum()).expand(len(offsets) - 1)


def best_against_the_rest_only(scores, ranks, offsets, **options):
    better, worse, prompt = ordered_pairs(ranks, offsets)
    keep = ranks[better] == 1
    totals = scores.new_zeros(len(offsets) - 1)
    totals = totals.index_add(0, prompt[keep], pairwise_loss(scores, better[keep], worse[keep]))
    return totals / paper_pairs(ranks, offsets).clamp(min=1)


def unranked_taken_as_first(scores, ranks, offsets, **options):
    return pairwise_ranking_loss(scores, ranks.clamp(min=0) + 1, offsets, **options)


def test_by_hand():
    def check(candidate):
        close(candidate(SCORES, RANKS, ONE_PROMPT), [0.227613])

    holds_and_rejects(
        check,
        pairwise_ranking_loss,
        {f.__name__: f for f in (all_rank_orders_reversed, no_normalizer, divided_by_k, best_against_the_rest_only)},
    )


def test_gradient_by_hand():
    def check(candidate):
        scores = SCORES.clone().requires_grad_()
        gradient = torch.autograd.grad(candidate(scores, RANKS, ONE_PROMPT).sum(), scores)[0]
        close(gradient, [-0.083132, -0.037967, 0.062923, 0.058176])
        close(gradient.sum(), 0.0)

    holds_and_rejects(
        check,
        pairwise_ranking_loss,
        {f.__name__: f for f in (all_rank_orders_reversed, no_normalizer, divided_by_k, best_against_the_rest_only)},
    )


def test_ties_dropped_and_the_two_denominators():
    def check_paper(denominators):
        close(pairwise_ranking_loss(SCORES, TIED, ONE_PROMPT, denominators=denominators), [0.148601])

    def check_untied(denominators):
        close(pairwise_ranking_loss(SCORES, TIED, ONE_PROMPT, denominators=denominators), [0.178321])

    holds_and_rejects(check_paper, paper_pairs, {"pairs left": untied_pairs})
    holds_and_rejects(check_untied, untied_pairs, {"C(K, 2)": paper_pairs})
    close(pairwise_ranking_loss(SCORES, TIED, ONE_PROMPT), [0.148601])
    assert paper_pairs(TIED, ONE_PROMPT).tolist() == [6] and untied_pairs(TIED, ONE_PROMPT).tolist() == [5]


@pytest.mark.parametrize("seed", range(4))
def test_against_slow_loops(seed):
    scores, ranks, offsets = random_rankings(seed)

    def check(candidate):
        torch.testing.assert_close(
            candidate(scores, ranks, offsets), loss_in_slow_loops(scores, ranks, offsets, sigmoid)
        )

    mutants = (
        all_rank_orders_reversed,
        no_normalizer,
        divided_by_k,
        every_prompt_compared_with_every_other,
        best_against_the_rest_only,
        unranked_taken_as_first,
    )
    holds_and_rejects(check, pairwise_ranking_loss, {f.__name__: f for f in mutants})


def test_two_completions_are_bradley_terry():
    loss = pairwise_ranking_loss(f64(0.3, 1.1), ints(2, 1), ints(0, 2))
    close(loss, [-math.log(sigmoid(0.8))])
    close(pairwise_ranking_loss(f64(0, 0), ints(1, 2), ints(0, 2)), [math.log(2)])


def test_weights_scale_each_prompt():
    scores, ranks, offsets = torch.cat([SCORES, SCORES]), torch.cat([RANKS, TIED]), ints(0, 4, 8)

    def check(candidate):
        close(candidate(scores, ranks, offsets, weights_P=f64(2.0, 0.5)), [2 * 0.227613, 0.5 * 0.148601], digits=5)

    def check_the_others(loss):
        torch.testing.assert_close(
            loss(scores, ranks, offsets, f64(2, 0.5)), loss(scores, ranks, offsets) * f64(2, 0.5)
        )

    holds_and_rejects(
        check,
        pairwise_ranking_loss,
        {
            "ignored": lambda s, r, o, weights_P: pairwise_ranking_loss(s, r, o),
            "in reverse": lambda s, r, o, weights_P: pairwise_ranking_loss(s, r, o, weights_P.flip(0)),
            "normalized": lambda s, r, o, weights_P: pairwise_ranking_loss(s, r, o, weights_P / weights_P.sum()),
        },
    )
    check_the_others(davidson_loss)
    check_the_others(rao_kupper_loss)


def test_order_of_completions_does_not_matter():
    for order in permutations(range(4)):
        shuffled = list(order)
        close(pairwise_ranking_loss(SCORES[shuffled], TIED[shuffled], ONE_PROMPT), [0.148601])


def test_partial_rankings_drop_the_unranked():
    scores = f64(2, 9, 1, 0.5, -9, -1)
    for unranked in (0, -1):
        close(pairwise_ranking_loss(scores, ints(1, unranked, 2, 3, unranked, 4), ints(0, 6)), [0.227613])


def test_prompts_with_nothing_to_compare_cost_nothing():
    scores = SCORES.clone().requires_grad_()
    loss = pairwise_ranking_loss(scores, ints(1, 1, 0, 2), ints(0, 2, 3, 3, 4), denominators=untied_pairs)
    close(loss, [0, 0, 0, 0])
    close(torch.autograd.grad(loss.sum(), scores)[0], [0, 0, 0, 0])


def test_pairs_of_one_prompt_only():
    better, worse, prompt = ordered_pairs(ints(1, 2, 2, 1, 0), ints(0, 2, 5))
    assert list(zip(better.tolist(), worse.tolist(), prompt.tolist(), strict=True)) == [(0, 1, 0), (3, 2, 1)]
    first, second, prompt = tied_pairs(ints(1, 1, 1, 1, 0, -1), ints(0, 2, 6))
    assert list(zip(first.tolist(), second.tolist(), prompt.tolist(), strict=True)) == [(0, 1, 0), (2, 3, 1)]


def test_davidson_by_hand():
    def check(candidate):
        win, tie, loss = (x.exp() for x in candidate(f64(0.5), 1.0))
        close(torch.cat([win, tie, loss]), [0.419229, 0.326496, 0.254275])
        win, tie, loss = (x.exp() for x in candidate(f64(0.847298), 2 / math.sqrt(21)))
        close(torch.cat([win, tie, loss]), [7 / 12, 2 / 12, 3 / 12])

    holds_and_rejects(
        check,
        davidson_log_probabilities,
        {
            "sign": lambda d, nu: davidson_log_probabilities(-d, nu),
            "no halves": lambda d, nu: davidson_log_probabilities(2 * d, nu),
            "nu squared": lambda d, nu: davidson_log_probabilities(d, nu**2 * 1.01),
        },
    )


def test_rao_kupper_by_hand():
    def check(candidate):
        win, tie, loss = (x.exp() for x in candidate(f64(0.5), 2.0))
        close(torch.cat([win, tie, loss]), [0.451863, 0.315441, 0.232697])
        close(win + tie + loss, [1.0])

    def tie_without_its_factor(d, theta):
        win, _, loss = rao_kupper_log_probabilities(d, theta)
        return win, win + loss, loss

    holds_and_rejects(
        check,
        rao_kupper_log_probabilities,
        {
            "sign": lambda d, theta: rao_kupper_log_probabilities(-d, theta),
            "theta inverted": lambda d, theta: davidson_log_probabilities(d, theta),
            "tie without its factor": tie_without_its_factor,
        },
    )


@pytest.mark.parametrize(
    ("loss", "win", "tie"),
    [
        (
            lambda s, r, o: davidson_loss(s, r, o, nu=0.7),
            lambda d: math.exp(d / 2) / (math.exp(d / 2) + 0.7 + math.exp(-d / 2)),
            lambda d: 0.7 / (math.exp(d / 2) + 0.7 + math.exp(-d / 2)),
        ),
        (
            lambda s, r, o: rao_kupper_loss(s, r, o, theta=1.5),
            lambda d: math.exp(d) / (math.exp(d) + 1.5),
            lambda d: 1 - math.exp(d) / (math.exp(d) + 1.5) - 1 / (1 + 1.5 * math.exp(d)),
        ),
    ],
    ids=["davidson", "rao-kupper"],
)
def test_losses_with_ties_against_slow_loops(loss, win, tie):
    for seed in range(3):
        scores, ranks, offsets = random_rankings(seed)

        def check(candidate, batch=(scores, ranks, offsets)):
            torch.testing.assert_close(candidate(*batch), loss_in_slow_loops(*batch, win, tie))

        holds_and_rejects(
            check,
            loss,
            {
                "ties dropped": pairwise_ranking_loss,
                "sign": lambda s, r, o: loss(-s, r, o),
                "unranked taken as tied last": lambda s, r, o: loss(s, torch.where(r > 0, r, 9), o),
            },
        )


def test_without_ties_both_tie_models_become_the_papers_loss():
    expected = pairwise_ranking_loss(SCORES, RANKS, ONE_PROMPT)
    close(davidson_loss(SCORES, RANKS, ONE_PROMPT, nu=1e-12), expected)
    close(rao_kupper_loss(SCORES, RANKS, ONE_PROMPT, theta=1.0), expected)


def test_default_constants_of_the_tie_models():
    """Scores of 0 and a tie: nu / (2 + nu) with nu = 1, and (theta - 1)/(theta + 1) with theta = 2."""
    close(davidson_loss(f64(0, 0), ints(1, 1), ints(0, 2)), [math.log(3)])
    close(rao_kupper_loss(f64(0, 0), ints(1, 1), ints(0, 2)), [math.log(3)])


@pytest.mark.parametrize("loss", [davidson_loss, rao_kupper_loss])
def test_a_tie_pulls_scores_together(loss):
    scores = f64(1.0, -0.5).requires_grad_()
    gradient = torch.autograd.grad(loss(scores, ints(1, 1), ints(0, 2)).sum(), scores)[0]
    assert gradient[0] > 0 > gradient[1] and gradient.sum().abs() < 1e-12
    expected = numerical_gradient(lambda at: loss(at, ints(1, 1), ints(0, 2)).sum(), scores.detach())
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("log_probabilities", "constant"), [(davidson_log_probabilities, 0.8), (rao_kupper_log_probabilities, 1.6)]
)
def test_the_constant_of_a_tie_model_can_be_learnt(log_probabilities, constant):
    parameter = torch.tensor(constant, dtype=torch.float64, requires_grad=True)
    _, tie, _ = log_probabilities(f64(0.5), parameter)
    gradient = torch.autograd.grad(tie.sum(), parameter)[0]
    expected = numerical_gradient(lambda at: log_probabilities(f64(0.5), at)[1].sum(), parameter.detach())
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-7)


def test_pick_best_by_hand():
    def check(candidate):
        close(candidate(SCORES, ints(0), ONE_PROMPT), [0.495182])

    holds_and_rejects(
        check,
        pick_best_loss,
        {
            "sign": lambda s, b, o: -pick_best_loss(s, b, o),
            "the worst picked": lambda s, b, o: pick_best_loss(-s, b, o),
            "best left out of the sum": lambda s, b, o: s[1:].logsumexp(0, keepdim=True) - s[b],
        },
    )


def test_pick_best_is_cross_entropy_and_stays_finite():
    scores = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 500
    best = ints(2, 0, 3)
    packed = pick_best_loss(scores.reshape(-1), best + ints(0, 4, 8), ints(0, 4, 8, 12))
    torch.testing.assert_close(packed, cross_entropy(scores, best, reduction="none"))


def plackett_luce_in_slow_loops(scores, ranks, offsets):
    totals = []
    for prompt in prompts_of(offsets):
        order = sorted((i for i in prompt if ranks[i] > 0), key=lambda i: int(ranks[i]))
        total = 0.0
        for k in range(len(order)):
            rest = math.log(sum(math.exp(float(scores[i])) for i in order[k:]))
            total += float(scores[order[k]]) - rest
        totals.append(total)
    return f64(*totals)


def test_plackett_luce_by_hand():
    def check(candidate):
        close(candidate(SCORES, RANKS, ONE_PROMPT), [-1.251552])

    holds_and_rejects(
        check,
        plackett_luce_log_likelihood,
        {
            "sign": lambda s, r, o: -plackett_luce_log_likelihood(s, r, o),
            "reversed": lambda s, r, o: plackett_luce_log_likelihood(s, 5 - r, o),
            "sum over pairs": lambda s, r, o: -6 * pairwise_ranking_loss(s, r, o),
        },
    )


def test_plackett_luce_against_slow_loops():
    generator = torch.Generator().manual_seed(0)
    offsets = ints(0, 4, 5, 9, 9, 14)
    ranks = torch.cat([torch.randperm(int(n), generator=generator) for n in offsets.diff()])  # one unranked a prompt
    scores = torch.randn(14, generator=generator, dtype=torch.float64)

    def check(candidate):
        torch.testing.assert_close(
            candidate(scores, ranks, offsets), plackett_luce_in_slow_loops(scores, ranks, offsets)
        )

    holds_and_rejects(
        check,
        plackett_luce_log_likelihood,
        {
            "unranked taken as last": lambda s, r, o: plackett_luce_log_likelihood(s, torch.where(r > 0, r, 9), o),
            "prompts run together": lambda s, r, o: -6 * pairwise_ranking_loss(s, r, o),
        },
    )


def test_plackett_luce_of_all_rankings_sums_to_one():
    total = sum(
        plackett_luce_log_likelihood(SCORES, ints(*order), ONE_PROMPT).exp() for order in permutations(range(1, 5))
    )
    close(total, [1.0])


def test_plackett_luce_of_two_is_bradley_terry():
    close(plackett_luce_log_likelihood(f64(0.3, 1.1), ints(2, 1), ints(0, 2)), [math.log(sigmoid(0.8))])


def test_pair_accuracy_counts_equal_scores_half():
    def check(candidate):
        close(candidate(f64(2, 1, 1, 3), ints(0, 1, 2), ints(1, 2, 3)), [1.0, 0.5, 0.0])

    holds_and_rejects(
        check,
        pair_accuracy,
        {
            "equal is right": lambda s, b, w: (s[b] >= s[w]).double(),
            "equal is wrong": lambda s, b, w: (s[b] > s[w]).double(),
            "reversed": lambda s, b, w: pair_accuracy(s, w, b),
        },
    )


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="ranks_N is"):
        pairwise_ranking_loss(SCORES, RANKS[:3], ONE_PROMPT)
    with pytest.raises(ValueError, match="weights_P is"):
        pairwise_ranking_loss(SCORES, RANKS, ONE_PROMPT, f64(1, 1))
    with pytest.raises(ValueError, match="no ties"):
        plackett_luce_log_likelihood(SCORES, TIED, ONE_PROMPT)
    for best in (ints(1, 0), ints(2, 3), ints(-1, 2)):
        with pytest.raises(ValueError, match="its own prompt"):
            pick_best_loss(SCORES, best, ints(0, 2, 4))
    with pytest.raises(ValueError, match="empty"):
        pick_best_loss(SCORES, ints(1, 3, 3), ints(0, 2, 4, 4))
