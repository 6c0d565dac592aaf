"""Passes over the graph: one a module, with one public function of the same name, graph in and graph out."""
