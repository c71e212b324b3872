// YAML as LXD writes it into backups: read by Go's yaml, by ours, and by scripts line by line.

/** Texts that YAML 1.1 or 1.2 takes for something else ("yes", "12:30") are quoted; nothing is an alias of something else. */
export async function yamlText(document: object): Promise<string> {
  // Loaded when it is needed: most daemons never make a backup.
  const { stringify } = await import('yaml');
  return stringify(document, {
    version: '1.1',
    compat: 'core',
    aliasDuplicateObjects: false,
    indentSeq: false,
    lineWidth: 0,
  });
}
