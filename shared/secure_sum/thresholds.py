"""How many sites must agree to a sum before any of them helps to open it."""


def least_threshold(sites: int, collusion: int) -> int:
    """The least t with 2 t > n + c.

    Whatever each honest site is told, a list of survivors needs t signatures: two lists with t each
    would take n + c, because only the c colluding sites sign both. It follows that t > c.
    """
    return (sites + collusion) // 2 + 1


def default_threshold(sites: int, collusion: int) -> int:
    """The threshold unless the study gives one: floor(2 n / 3) + 1.

    That holds against any c < n / 3. With more colluding sites to tolerate it is the least that
    holds against them.
    """
    if 3 * collusion < sites:
        return 2 * sites // 3 + 1
    return least_threshold(sites, collusion)
