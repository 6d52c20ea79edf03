def manifests(m): return ''
def pods(m): return ''
