// Configuration: oslo.config's dialect and rules, and complaints that an operator can act on.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { composeConfig } from '#src/compute/config/compose.ts';
import { parseIni } from '#src/compute/config/ini.ts';
import { ConfigError, loadComputeConfig, type ConfigMachine } from '#src/compute/config/load.ts';
import { Options } from '#src/compute/config/options.ts';
import { computeOptions } from '#src/compute/config/schema.ts';

const KEYSTONE = `
auth_type = password
auth_url = http://keystone:5000/v3
username = nova
password = secret
user_domain_name = Default
project_name = service
project_domain_name = Default
`;

function optionsOf(text: string, environment: Record<string, string> = {}): Options {
  return new Options({
    files: [parseIni(text, 'nova.conf')],
    environment,
    machineDefaults: { host: 'node1', my_ip: '10.0.0.1', tempdir: '/tmp' },
  });
}

function complaintsOf(text: string, environment: Record<string, string> = {}): string[] {
  const options = optionsOf(text, environment);
  composeConfig(options, []);
  return options.complaints.map(({ origin, message }) => `${origin}: ${message}`);
}

describe('the ini dialect', () => {
  it('joins indented lines, keeps repeated keys, strips quotes, takes ":" as well as "="', () => {
    const { sections, complaints } = parseIni(
      '[A]\nx = 1\n  2\n\nq: "a # b"\nm=1\nm=2\n# c\n; d\n[Default]\nz=\n',
      'f',
    );

    expect(complaints).toEqual([]);
    expect(sections.get('a')?.get('x')).toEqual([{ text: '1\n2', origin: 'f:2' }]);
    expect(sections.get('a')?.get('q')?.[0]?.text).toBe('a # b');
    expect(
      sections
        .get('a')
        ?.get('m')
        ?.map(({ text }) => text),
    ).toEqual(['1', '2']);
    expect(sections.get('DEFAULT')?.get('z')?.[0]?.text).toBe('');
  });

  it('names the line of everything it cannot read, and reads on', () => {
    const { sections, complaints } = parseIni('early = 1\n[A\n[B]\nnothing\n=3\n\n  lost\nok = 1', 'f');

    expect(complaints.map(({ origin }) => origin)).toEqual(['f:1', 'f:2', 'f:4', 'f:5', 'f:7']);
    expect(sections.get('b')?.get('ok')?.[0]?.text).toBe('1');
  });
});

describe('values', () => {
  it('substitutes references to the own section, to DEFAULT, to other groups and to defaults', () => {
    const options = optionsOf(`[DEFAULT]
state_path = /var/$control_exchange
log_dir = $state_path/log
transport_url = rabbit://u:p$$w\\$@\${my_ip}/
[lxd]
project = $neutron.ovs_bridge
storage_pool = $project-pool
`);

    expect(options.complaints).toEqual([]);
    expect(options.get('DEFAULT', 'log_dir')).toBe('/var/nova/log');
    expect(options.get('DEFAULT', 'transport_url')).toBe('rabbit://u:p$w$@10.0.0.1/');
    expect(options.get('lxd', 'storage_pool')).toBe('br-int-pool');
  });

  it('refuses a reference to nothing and a circle of references', () => {
    expect(complaintsOf('[DEFAULT]\nhost = a$nothing\n')).toEqual([
      expect.stringContaining('nova.conf:2: [DEFAULT] host: $nothing names no option'),
    ]);
    expect(complaintsOf('[DEFAULT]\nlog_dir = $state_path\nstate_path = $log_dir\n').join()).toContain('circle');
  });

  it('takes the environment before files, older names after current ones, and the last of repeated values', () => {
    const text = '[DEFAULT]\nhost = one\nhost = two\nrpc_thread_pool_size = 7\nlogfile = a.log\nlog_file = b.log\n';

    const options = optionsOf(text, { OS_LXD__PROJECT: 'nova', OS_DEFAULT__DEBUG: 'Yes' });

    expect(options.get('DEFAULT', 'host')).toBe('two');
    expect(options.get('DEFAULT', 'executor_thread_pool_size')).toBe(7);
    expect(options.get('DEFAULT', 'log_file')).toBe('b.log');
    expect(options.get('lxd', 'project')).toBe('nova');
    expect(options.get('DEFAULT', 'debug')).toBe(true);
  });

  it('reads lists by commas and multi-valued options by repetition', () => {
    const options = optionsOf(
      '[lxd]\nprofiles = a, b,\n[oslo_messaging_notifications]\ndriver=log\ndriver=messagingv2\n',
    );

    expect(options.get('lxd', 'profiles')).toEqual(['a', 'b']);
    expect(options.get('oslo_messaging_notifications', 'driver')).toEqual(['log', 'messagingv2']);
  });
});

describe('complaints', () => {
  it('come all at once, with file and line, and tolerate the options of nova that do not concern us', () => {
    const complaints = complaintsOf(`[DEFAULT]
report_interval = often
compute_driver = libvirt.LibvirtDriver
unknown_to_us = 1
running_deleted_instance_action = explode
[database]
connection = mysql://x
[lxd]
endpont = unix:///x
request_timeout = 0
[oslo_messaging_rabbit]
heartbeat_rate = fast
some_old_option = 1
[service_user]
send_service_user_token = true
`);

    expect(new Set(complaints.map((line) => line.split(': ', 1)[0]))).toEqual(
      new Set([
        'nova.conf:2',
        'nova.conf:3',
        'nova.conf:5',
        'nova.conf:9',
        'nova.conf:10',
        'nova.conf:12',
        '[service_user] auth_type',
      ]),
    );
    expect(complaints.join('\n')).toContain('[lxd] has no option endpont; it has endpoint, project');
    expect(complaints.join('\n')).toContain('must be a whole number, not "often"');
  });

  it('never show a secret', () => {
    const complaints = complaintsOf(
      '[DEFAULT]\ntransport_url = rabbit://u:$hunter2@h/\n[placement]\nauth_type=password\npassword=$pw-x\n',
    );

    expect(complaints.length).toBeGreaterThan(1);
    expect(complaints.join('\n')).not.toContain('rabbit://');
    expect(complaints.join('\n')).not.toContain('-x');
  });
});

describe('the sections of OpenStack services', () => {
  it('become credentials and endpoints of our clients', () => {
    const options =
      optionsOf(`[placement]${KEYSTONE}region_name = R1\nvalid_interfaces = internalURL,public\ncafile=/ca.pem\ntimeout=5
[cinder]
auth_section = placement
catalog_info = volumev3:cinderv3:internalURL
[glance]
api_servers = http://g1:9292/v2,http://g2:9292
`);

    const config = composeConfig(options, []);

    expect(options.complaints).toEqual([]);
    expect(config.placement).toMatchObject({
      auth: {
        type: 'password',
        authUrl: 'http://keystone:5000/v3',
        user: { name: 'nova', domainName: 'Default' },
        password: 'secret',
        project: { name: 'service', domainName: 'Default' },
      },
      tls: { caFile: '/ca.pem', insecure: false },
      timeoutMs: 5000,
      region: 'R1',
      interfaces: ['internal', 'public'],
    });
    expect(config.cinder).toMatchObject({ serviceType: 'volumev3', serviceName: 'cinderv3', interfaces: ['internal'] });
    expect(config.cinder.auth).toEqual(config.placement.auth);
    expect(config.glance).toMatchObject({ endpointOverride: 'http://g1:9292', statusRetries: 3 });
    expect(config.glance.auth).toBeUndefined();
  });

  it('complain about credentials that are not complete, at the section', () => {
    const complaints = complaintsOf(
      '[placement]\nauth_type = v3applicationcredential\n[neutron]\nauth_type = kerberos\n',
    );

    expect(complaints.join('\n')).toContain('[placement] auth_url: must be set');
    expect(complaints.join('\n')).toContain('[placement] application_credential_secret: must be set');
    expect(complaints.join('\n')).toContain('nova.conf:4: [neutron] auth_type: kerberos is not known');
  });
});

describe('the schema', () => {
  it('has no option that the configuration ignores', () => {
    const read = new Set<string>();
    class Recording extends Options {
      override get(section: string, name: string) {
        read.add(`${section}.${name}`);
        return super.get(section, name);
      }
    }
    const sources = (text: string) => ({
      files: [parseIni(text, 'f')],
      environment: {},
      machineDefaults: { host: 'h', my_ip: '1.2.3.4', tempdir: '/tmp' },
    });
    const sections = [
      'placement',
      'neutron',
      'cinder',
      'service_user',
      'vendordata_dynamic_auth',
      'keystone_authtoken',
    ];
    for (const type of ['password', 'v3applicationcredential', 'v3token']) {
      const scoped = sections.map((name) => `[${name}]${KEYSTONE.replace('= password', `= ${type}`)}`).join('\n');
      composeConfig(new Recording(sources(scoped)), []);
      composeConfig(
        new Recording(
          sources(
            sections.map((name) => `[${name}]\nauth_section=keystone_authtoken\n`).join('') +
              `[keystone_authtoken]${KEYSTONE.replace('= password', `= ${type}`)}`,
          ),
        ),
        [],
      );
    }

    const known = [...computeOptions].flatMap(([section, { options }]) =>
      [...options.keys()].map((name) => `${section}.${name}`),
    );

    expect(known.filter((name) => !read.has(name) && name !== 'keystone_authtoken.auth_section')).toEqual([]);
  });

  it('describes every option and gives it a default', () => {
    const options = [...computeOptions.values()].flatMap((section) => [...section.options.values()]);

    expect(options.filter(({ description }) => description.length < 5)).toEqual([]);
    expect(
      options.filter((option) => option.default === undefined || (option.default === null && !option.nullable)),
    ).toEqual([]);
  });
});

describe('loading', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'compute-config-'));
  });
  afterEach(async () => {
    await rm(folder, { recursive: true });
  });

  const machine = (): ConfigMachine => ({
    environment: {},
    hostname: 'node1',
    address: '10.0.0.1',
    homeFolder: folder,
    tempFolder: '/tmp',
  });

  it('lets later files win, and the files of a folder in order of their names', async () => {
    const conf = join(folder, 'nova.conf');
    const extra = join(folder, 'extra');
    await mkdir(extra);
    await writeFile(conf, '[DEFAULT]\nhost = a\nreport_interval = 5\n');
    await writeFile(join(extra, '20.conf'), '[DEFAULT]\nhost = c\n');
    await writeFile(join(extra, '10.conf'), '[DEFAULT]\nhost = b\nstate_path = /s\n');
    await writeFile(join(extra, 'ignored.txt'), '[DEFAULT]\nhost = d\n');

    const config = await loadComputeConfig(
      [
        { kind: 'file', path: conf },
        { kind: 'folder', path: extra },
      ],
      machine(),
    );

    expect(config).toMatchObject({ host: 'c', statePath: '/s', service: { reportIntervalMs: 5000 } });
    expect(config.configFolders).toEqual([folder, extra]);
  });

  it('finds the default files when none is named', async () => {
    await mkdir(join(folder, '.nova'));
    await writeFile(join(folder, '.nova', 'nova.conf'), '[DEFAULT]\nhost = home\n');

    const config = await loadComputeConfig([], machine());

    expect(config.host).toBe('home');
    expect(config.configFolders[0]).toBe(join(folder, '.nova'));
  });

  it('rejects with all complaints, and says which file is missing', async () => {
    const conf = join(folder, 'nova.conf');
    await writeFile(conf, '[DEFAULT]\nreport_interval = x\n[lxd]\nnope = 1\n');

    const failure = await loadComputeConfig([{ kind: 'file', path: conf }], machine()).catch((error: unknown) => error);

    expect(failure).toBeInstanceOf(ConfigError);
    expect((failure as ConfigError).complaints).toHaveLength(2);
    await expect(loadComputeConfig([{ kind: 'file', path: '/no/such' }], machine())).rejects.toThrow('/no/such');
  });
});
