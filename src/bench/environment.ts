/**
 * What a program under measurement runs in: this process's environment without what Node.js reads when it starts and a manager
 * does not give it. A file of certificates alone (NODE_EXTRA_CA_CERTS) takes it longer than all the rest.
 */
export function plainEnvironment(): NodeJS.ProcessEnv {
  const { NODE_EXTRA_CA_CERTS: _certificates, NODE_OPTIONS: _options, ...rest } = process.env;
  return rest;
}
