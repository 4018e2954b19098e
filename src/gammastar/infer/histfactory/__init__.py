"""HistFactory: modifiers, workspaces, patch sets, HS3 and XML, and likelihoods that others published."""
