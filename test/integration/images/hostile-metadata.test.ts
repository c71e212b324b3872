// Images whose metadata.yaml and templates are meant to confuse the daemon, to keep it busy, or to fill it.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Member, tar } from '../host/tar-writer.ts';
import { describeWith } from '../support.ts';
import { bareImage, directory, file, HostileLab, link, METADATA } from './hostile-support.ts';

/** The daemon must not be deaf for longer, on a busy machine. */
const DEAF_MS = 5000;
const nobodyKnows: readonly Member[] = [{ name: 'metadata.yaml', type: '6' }];
const many = (count: number, text: (index: number) => string) =>
  Array.from({ length: count }, (_, at) => text(at)).join('');

const ALIASES = `a: &a [x,x,x,x,x,x,x,x,x,x]
${'bcdefghij'.replaceAll(/./g, (name, at: number) => `${name}: &${name} [${`*${'abcdefghi'[at]},`.repeat(10)}]\n`)}`;

/** Refused with the image. */
const DOCUMENTS: Readonly<Record<string, string | readonly Member[]>> = {
  'is empty': '',
  'is no YAML': '{ : [',
  'is a list': '- a\n- b\n',
  'is a word': 'hello',
  'is two documents': `${METADATA}---\n${METADATA}`,
  'has the same key twice': `${METADATA}architecture: evil\n`,
  'has no architecture': 'creation_date: 1\n',
  'has an architecture that is a map': 'architecture: {a: b}\n',
  'has an architecture that nobody built': 'architecture: "../../x86_64"\n',
  'has an architecture out of the prototype': 'architecture: constructor\n',
  'is a bomb of aliases': `${METADATA}${ALIASES}`,
  'is nested without end': `${METADATA}properties: ${'['.repeat(200_000)}`,
  'is nested without end, in JSON': `{"architecture":"x86_64","properties":${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`,
  'is of another size than anybody reads': `${METADATA}properties: {a: ${'x'.repeat(1 << 20)}}\n`,
  'runs code in other readers': `${METADATA}properties: !!js/function "function(){process.exit()}"\n- !!python/object/apply:os.system ["x"]\n`,
  'names a template that climbs out': `${METADATA}templates: {/etc/x: {when: [start], template: ../../../etc/shadow}}\n`,
  'names an absolute template': `${METADATA}templates: {/etc/x: {when: [start], template: /etc/shadow}}\n`,
  'names a template with a NUL': `${METADATA}templates: {/etc/x: {when: [start], template: "a\\0b"}}\n`,
  'names a hidden template': `${METADATA}templates: {/etc/x: {when: [start], template: ..}}\n`,
  'puts a template at a path with a NUL': `${METADATA}templates: {"/etc/x\\0y": {when: [start], template: t}}\n`,
  'has more templates than anybody needs': `${METADATA}templates:\n${many(8000, (at) => ` /t${at}: {when: [start], template: t}\n`)}`,
  'is a pipe': nobodyKnows,
  'is a device': [{ name: 'metadata.yaml', type: '3', device: [1, 5] }],
  'is a link to the host': [link('metadata.yaml', '/etc/shadow')],
  'is a directory': [directory('metadata.yaml/')],
  'is not there': [],
};

/** Taken, and read as nothing more than text. */
const HARMLESS: Readonly<Record<string, string>> = {
  'numbers that are none': 'expires: -1e308\nexpiry_date: .nan\n',
  'lists for maps': 'properties: [1, 2]\ntemplates: [3]\n',
  'keys of the prototype': 'properties: {__proto__: {a: b}, constructor: {prototype: {a: b}}, toString: x}\n',
  'values of every kind': 'properties: {a: [1], b: {c: d}, c: null, d: 1.5, e: true, f: 2026-01-01}\n',
  'control characters': 'properties: {"a\x1b[31m": "\\e]0;evil\\a"}\n',
  'a template of no kind': 'templates: {/etc/x: null, /etc/y: 5}\n',
};

interface Template {
  readonly at?: string;
  readonly text: string;
  readonly properties?: string;
  /** Absent: it starts. */
  readonly error?: RegExp;
}

const loops = (depth: number) =>
  `${many(depth, (at) => `{% for k${at} in properties %}`)}x${'{% endfor %}'.repeat(depth)}`;
const PROPERTIES = `{${many(60, (at) => `p${at}: ${'v'.repeat(50)}, `)}}`;

const TEMPLATES: Readonly<Record<string, Template>> = {
  'loops in loops in loops': { text: loops(8), properties: PROPERTIES, error: /template/u },
  'an output that grows and grows': {
    text: loops(3).replace('x', '{{ properties }}'),
    properties: PROPERTIES,
    error: /template/u,
  },
  'a comparison of everything with everything': {
    text: loops(3).replace('x', '{% if properties == properties %}{% endif %}'),
    properties: PROPERTIES,
    error: /template/u,
  },
  'brackets that open and never close': { text: '{{'.repeat(400_000) },
  'comments that open and never close': { text: '{#'.repeat(400_000) },
  'tags that open and never close': { text: '{%'.repeat(400_000) },
  'brackets in brackets': { text: `{{ ${'('.repeat(100_000)} }}`, error: /template/u },
  'names of names of names': { text: `{{ a${'.a'.repeat(300_000)} }}`, error: /template/u },
  'conditions in conditions': {
    text: `${'{% if true %}'.repeat(30_000)}${'{% endif %}'.repeat(30_000)}`,
    error: /template/u,
  },
  'a string that never ends': { text: `{{ "${'\\a'.repeat(400_000)} }}`, error: /template/u },
  'names of the prototype': { text: '{{ constructor.constructor("return process")() }}', error: /template/u },
  'functions of others': { text: '{{ config_get.constructor("return 1") }}', error: /template/u },
  'a tag that reads files': { text: '{% include "/etc/shadow" %}', error: /template/u },
  'a place that climbs out': { at: '/../../../../../../../../tmp/evil-template', text: 'x' },
  'a place that is relative': { at: '../../../../../../../../tmp/evil-template', text: 'x' },
  'a place that is the root': { at: '/', text: 'x', error: /regular file/u },
  'a place below a file': {
    at: '/etc/passwd/x',
    text: 'x',
    error: /cannot write \/etc\/passwd\/x of the container: not a directory/u,
  },
  'a place with a very long name': {
    at: `/etc/${'n'.repeat(300)}`,
    text: 'x',
    error: /cannot write \/etc\/n+… of the container: name too long/u,
  },
  'a place in a very deep folder': { at: `/etc${'/d'.repeat(450)}`, text: 'x' },
};

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'tar'] }, 'metadata of an image that', () => {
  let lab: HostileLab;

  beforeAll(async () => {
    lab = await HostileLab.start();
  });
  afterAll(() => lab[Symbol.asyncDispose]());

  it.each(Object.keys(DOCUMENTS))('%s is refused', async (name) => {
    const document = DOCUMENTS[name] ?? [];
    const isText = typeof document === 'string';
    const image = isText ? bareImage([], document) : tar([...document, directory('rootfs/')]);

    const { result, deafMs } = await lab.deafnessDuring(lab.fate(image));

    expect(result).toMatchObject({ stage: 'import' });
    expect(result.error.length).toBeLessThan(2000);
    expect(deafMs).toBeLessThan(DEAF_MS);
    await lab.expectHarmless(result);
  });

  it.each(Object.keys(HARMLESS))('has %s is text', async (name) => {
    const fate = await lab.fate(lab.image([], `${METADATA}${HARMLESS[name]}`));

    expect(fate).toEqual({ stage: 'started', error: '' });
    await lab.expectHarmless(fate);
  });

  it.each(Object.keys(TEMPLATES))('has a template with %s ends', async (name) => {
    const { at = '/etc/made', text, properties = '{}', error } = TEMPLATES[name] ?? { text: '' };
    const template = `templates:\n ${JSON.stringify(at)}: {when: [start], template: t, properties: ${properties}}\n`;
    const image = lab.image([file('templates/t', text)], `${METADATA}${template}`);

    const { result, deafMs } = await lab.deafnessDuring(lab.fate(image));

    expect(result).toEqual(
      error ? { stage: 'start', error: expect.stringMatching(error) } : { stage: 'started', error: '' },
    );
    expect(result.error.length).toBeLessThan(8000);
    expect(deafMs).toBeLessThan(DEAF_MS);
    await lab.expectHarmless(result);
  });
});
